"""Exact sums of floats: each value falls apart into integer digits of base 2**32, and digits are added as integers.

Integer addition is associative, so a sum does not depend on the order or grouping of its rows, on the plan, on what
lies outside the window, or on whether it was merged offline or online; it is rounded once, at the end. (The idea is
that of a long accumulator: Kulisch, Computer Arithmetic and Validity, 2013.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Digits = Mapping[int, Ints]  # place k: sum of digits that count 2**(32 k); any int64, carried when it is read
DoubleDouble = tuple[Floats, Floats]

BITS = 32
_MASK = np.int64((1 << BITS) - 1)
_SPLITTER = 134217729.0  # 2**27 + 1: Dekker's split of a double into two halves


def digits(values: Floats) -> Iterator[tuple[int, Ints]]:
    """Place and digits (|digit| < 2**32, of the value's sign) of finite `values`, the highest place first.

    So many places as the values need: one for integers below 2**32. Sums of up to 2**31 rows do not overflow.
    """
    top = float(np.abs(values).max(initial=0.0))
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
    """Rounded squares of `values` and what the rounding lost: their sum is exact (Dekker 1971)."""
    product = values * values
    spread = values * _SPLITTER
    high = spread - (spread - values)
    low = values - high
    return product, ((high * high - product) + 2 * high * low) + low * low


def round_once(total: Digits, size: int) -> DoubleDouble:
    """The sums as pairs of doubles (high, low), high being the sum rounded to nearest; shape (size,) each.

    A function of the exact sum alone: digits are brought into one normal form first.
    """
    carried, sign = _normal(total, size)
    high, low = np.zeros(size), np.zeros(size)
    with np.errstate(over="ignore", invalid="ignore"):
        for place in sorted(carried):
            term = np.ldexp(carried[place].astype(np.float64), BITS * place)
            # Two-sum (Knuth): the new term is not smaller than all before it together.
            added = term + high
            part = added - term
            low += (term - (added - part)) + (high - part)
            high = added
        total_high = high + low
        low = np.where(np.isfinite(total_high), low - (total_high - high), 0.0)
    return sign * total_high, sign * low


def _normal(total: Digits, size: int) -> tuple[dict[int, Ints], Floats]:
    """Digits of the absolute sums, each in [0, 2**32), places without a gap; and the signs."""
    if not total:
        return {}, np.ones(size)
    carried, carry = _carry(total, size)
    sign = np.where(carry < 0, np.int64(-1), np.int64(1))
    carried, carry = _carry({place: sign * digit for place, digit in total.items()}, size)
    carried[max(total) + 1] = carry
    return carried, sign.astype(np.float64)


def _carry(total: Digits, size: int) -> tuple[dict[int, Ints], Ints]:
    carried: dict[int, Ints] = {}
    carry = np.zeros(size, np.int64)
    for place in range(min(total), max(total) + 1):
        digit = total[place] + carry if place in total else carry
        carried[place], carry = digit & _MASK, digit >> BITS
    return carried, carry


def variance(total: DoubleDouble, squared: DoubleDouble, count: Ints) -> Floats:
    """Sample variance from sum, sum of squares and count; NaN below two values.

    The difference of two nearly equal numbers is taken in twice the precision, so that a large mean costs no digits.
    """
    n = np.maximum(count, 1).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean_high = total[0] / n
        product, lost = _product(mean_high, n)
        mean_low = ((total[0] - product) - lost + total[1]) / n
        # total * mean, the low parts' product being below the last digit of the pair
        product, lost = _product(total[0], mean_high)
        lost = lost + total[0] * mean_low + total[1] * mean_high
        difference = (squared[0] - product) + (squared[1] - lost)
        spread = np.maximum(difference, 0.0) / np.maximum(n - 1, 1)
    return np.where(count > 1, spread, np.nan)


def _product(a: Floats, b: Floats) -> DoubleDouble:
    """The rounded product and what the rounding lost (Dekker 1971)."""
    product = a * b
    a_high, b_high = _high(a), _high(b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _high(value: Floats) -> Floats:
    spread = value * _SPLITTER
    return spread - (spread - value)
