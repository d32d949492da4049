"""Exact sums of floats: each value falls apart into integer digits of base 2**32, and digits are added as integers.

Integer addition is associative, so a sum does not depend on the order or grouping of its rows, on the plan, on what
lies outside the window, or on whether it was merged offline or online; it is rounded once, at the end. (The idea is
that of a long accumulator: Kulisch, Computer Arithmetic and Validity, 2013.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Digits = Mapping[int, Ints]  # place k: sum of digits that count 2**(32 k); any int64, carried when it is read

BITS = 32
_BLOCK = 32 * 1024  # sums that are rounded together: small enough for a processor's cache
_MASK = np.int64((1 << BITS) - 1)
_SPLITTER = 134217729.0  # 2**27 + 1: Dekker's split of a double into two halves


def digits(values: Floats) -> Iterator[tuple[int, Ints]]:
    """Place and digits (|digit| < 2**32, of the value's sign) of finite `values`, the highest place first.

    So many places as the values need: one for integers below 2**32. Sums of up to 2**30 rows do not overflow, whether
    of values or of both parts of their squares.
    """
    top = float(np.abs(values).max(initial=0.0))
    assert np.isfinite(top), "NaN and infinities have no digits"
    if top == 0.0:
        return
    place, rest = (int(np.frexp(top)[1]) - 1) // BITS, values
    while True:
        scale = BITS * place
        digit = np.trunc(np.ldexp(rest, -scale))
        yield place, digit.astype(np.int64)
        rest = rest - np.ldexp(digit, scale)
        if not rest.any():
            return
        place -= 1


def squares(values: Floats) -> tuple[Floats, Floats]:
    """Rounded squares of `values` (up to 2**511) and what the rounding lost: their sum is exact (Dekker 1971).

    Of values below 2**-480 the square's bits below the smallest double, 2**-1074, are lost.
    """
    product = values * values
    spread = values * _SPLITTER
    high = spread - (spread - values)
    low = values - high
    return product, ((high * high - product) + 2 * high * low) + low * low


def round_once(total: Digits, size: int) -> Floats:
    """The sums, shape (size,), each the double nearest to the exact sum, ties to even; infinite beyond all doubles.

    A function of the exact sum alone: what `math.fsum` gives, in any order and grouping.
    """

    def rounded(block: slice) -> Floats:
        leading, scale = _leading(_within(total, block))
        with np.errstate(over="ignore"):
            return np.ldexp(leading, scale)

    if total.keys() == {0}:
        return total[0].astype(np.float64)
    return _in_blocks(rounded, size) if total else np.zeros(size)


def variance(total: Digits, squared: Digits, count: Ints) -> Floats:
    """Sample variance of `count` (2 to 2**30) values, from their sum and the sum of their squares; 0 below two.

    n * squares - sum ** 2 is exact before it is rounded, so a large mean costs no digits: the result is within 4 ulp,
    and 0 where all values are equal. (Of values below 2**-480 it is within the error of `squares`.)
    """

    def spread(block: slice) -> Floats:
        leading, scale = _leading(_spread(_within(total, block), _within(squared, block), count[block]))
        n = np.maximum(count[block], 2).astype(np.float64)
        return np.ldexp(np.maximum(leading, 0.0) / (n * (n - 1)), scale)

    return _in_blocks(spread, len(count)) if squared else np.zeros(len(count))


def _within(total: Digits, block: slice) -> Digits:
    return {place: digit[block] for place, digit in total.items()}


def _in_blocks(compute: Callable[[slice], Floats], size: int) -> Floats:
    return np.concatenate([np.zeros(0), *(compute(slice(at, at + _BLOCK)) for at in range(0, size, _BLOCK))])


def _spread(total: Digits, squared: Digits, count: Ints) -> Digits:
    """count * squared - total ** 2, place by place."""
    found: dict[int, Ints] = {min(squared): np.zeros_like(count)}

    def add(place: int, products: NDArray[np.uint64], times: int) -> None:
        for at, digit in ((place, products & np.uint64(_MASK)), (place + 1, products >> np.uint64(BITS))):
            part = digit.astype(np.int64) * times
            found[at] = found[at] + part if at in found else part

    n = count.astype(np.uint64)
    for place, digit in _unsigned(squared).items():
        add(place, digit * n, 1)
    root = list(_unsigned(total).items())
    for at, (place, digit) in enumerate(root):
        add(2 * place, digit * digit, -1)
        for other, below in root[:at]:
            add(place + other, digit * below, -2)
    return found


def _unsigned(total: Digits) -> dict[int, NDArray[np.uint64]]:
    """The digits of the absolute sums, without places where all are zero."""
    if not total:
        return {}
    return {place: digit.astype(np.uint64) for place, digit in _normal(total)[0].items() if digit.any()}


def _leading(total: Digits) -> tuple[Floats, Ints]:
    """The sums as doubles times 2**scale: rounded to nearest, and neither too large nor too small for a double."""
    carried, sign = _normal(total)
    lowest, zero = min(carried), np.zeros(len(sign), np.int64)
    rows = np.stack([zero, zero, *(carried[place] for place in sorted(carried))])
    query, filled = np.arange(len(sign)), rows != 0
    top = np.maximum(len(rows) - 1 - np.argmax(filled[::-1], axis=0), 2)
    high, middle, low = (rows[top - below, query] for below in range(3))
    if len(rows) > 5:
        # The last bit stands for all that follow: they only decide on which side of a tie the sum lies.
        follows = np.logical_or.accumulate(filled, axis=0)[np.maximum(top - 3, 0), query]
        low = low | follows
    return sign * _nearest(high, middle, low), BITS * (top - 4 + lowest)


def _nearest(high: Ints, middle: Ints, low: Ints) -> Floats:
    """The double nearest to high * 2**64 + middle * 2**32 + low, of digits in [0, 2**32)."""
    first, second, third = high * 2.0 ** (2 * BITS), middle * 2.0**BITS, low.astype(np.float64)
    below = second + third
    added = first + below
    # What the two additions lost (Dekker's fast two-sum) fits into one double.
    return added + ((below - (added - first)) + (third - (below - second)))


def _normal(total: Digits) -> tuple[dict[int, Ints], Floats]:
    """Digits of the absolute sums, each in [0, 2**32), places without a gap; and the signs."""
    carried, carry = _carry(total)
    sign = np.where(carry < 0, np.int64(-1), np.int64(1))
    if (carry < 0).any():
        carried, carry = _carry({place: sign * digit for place, digit in total.items()})
    carried[max(total) + 1] = carry
    return carried, sign.astype(np.float64)


def _carry(total: Digits) -> tuple[dict[int, Ints], Ints]:
    """Digits of the sums, each in [0, 2**32), places without a gap; and what is above the highest place."""
    carried: dict[int, Ints] = {}
    carry = np.zeros_like(total[min(total)])
    for place in range(min(total), max(total) + 1):
        digit = total[place] + carry if place in total else carry
        carried[place], carry = digit & _MASK, digit >> BITS
    return carried, carry
