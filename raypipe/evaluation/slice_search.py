"""The search for the slices in which the model is worst: by values and bins of features and request columns, one
column or two.

Worst is by the avoidable loss (raypipe.evaluation.avoidable), so that a slice is not bad for being hard. A slice is
found if
- another correction of the scores is due in it than in all other rows: a score test of two degrees of freedom with the
  variance that the scores imply, raised to what blocks of rows show where rows of one block are alike, against F with
  the effective number of blocks (Carter, Schnepel, Steigerwald: Asymptotic Behavior of a t-Test Robust to Cluster
  Heterogeneity, Review of Economics and Statistics 2017);
- of two columns: another one, too, than in the rest of the slice of either, which would tell the same in fewer words.
  Its p-value is the largest of the three (Berger: Multiparameter Hypothesis Testing, Technometrics 1982);
- that stands after correction for all slices tested (Holm: A Simple Sequentially Rejective Multiple Test Procedure,
  Scandinavian Journal of Statistics 1979): the chance that any slice is told in vain is 1 - the confidence at most.
  Slices overlap, so a rule for independent tests will not do. Of those that hold for any dependence, Benjamini's and
  Yekutieli's bounds the share of errors in a list instead, and asks ten times as much of its first ten slices. Slices
  of one column, which are few, have half of the chance to themselves, or those of two would drown them;
- its avoidable loss exceeds that of these others by an amount that matters, `least_effect`.
A slice that is bad by the rows of slices already found alone is left out: it holds them, lies in them, or is nearly the
same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from raypipe.evaluation.avoidable import Array, Correctable, saved
from raypipe.evaluation.binning import Binned
from raypipe.evaluation.figure import Figure
from raypipe.evaluation.influence import Ints
from raypipe.evaluation.intervals import mean
from raypipe.evaluation.slice_sums import Sums, contrast, effective, p_value, spread_of_blocks, sums_by, terms
from raypipe.project.slice_settings import WorstSlices

CORRECTION = "Holm"
_EXAMINED = 300  # slices of each kind looked at block by block, the worst by a first look; others are not found
_LEAST_BLOCKS = 8.0  # effective number: of fewer, it cannot be known how much they differ by themselves
_LEAST_EVENTS = 25.0  # binary: sum of p (1 - p) in the slice; the count of rarer events is far from normal

Mask = NDArray[np.bool_]
Where = tuple[tuple[str, int], ...]  # columns, each with the code of a bin


@dataclass(frozen=True)
class Found:
    """A slice in which the model is worse than elsewhere.

    where: columns with their value or bin. loss: what is avoidable of it, a row. rest: the same of all other rows.
    predicted, observed: means of score and label. p_adjusted: the least chance of any error with which it is found.
    """

    where: list[tuple[str, str | None]]
    rows: int
    loss: Figure
    rest: float
    predicted: float
    observed: float
    p_value: float
    p_adjusted: float

    @property
    def more(self) -> float:
        """By how much the avoidable loss exceeds the rest's."""
        assert self.loss.value is not None
        return self.loss.value - self.rest

    @property
    def surely(self) -> float:
        """The lower end of the avoidable loss."""
        assert self.loss.low is not None
        return self.loss.low

    def to_json(self) -> dict[str, Any]:
        where = [{"feature": name, "is": value} for name, value in self.where]
        return {**vars(self), "where": where, "loss": self.loss.to_json()}


@dataclass(frozen=True)
class Search:
    """What is searched.

    rows: those that count. blocks: shape (rows,). columns: of `rows`, by name. paired: those of which two make a slice.
    """

    rows: Correctable
    blocks: Ints
    columns: Mapping[str, Binned]
    paired: Sequence[str]
    settings: WorstSlices
    confidence: float

    @cached_property
    def terms(self) -> Array:
        return terms(self.rows)

    @cached_property
    def total(self) -> Sums:
        return Sums(self.terms.sum(axis=0, keepdims=True))

    @cached_property
    def least_effect(self) -> float:
        loss = self.rows.loss(self.rows.score)
        return self.settings.least_effect * float(np.average(loss, weights=self.rows.weight))

    def inside(self, where: Where) -> Mask:
        """Whether each row is in the slice."""
        return np.asarray(np.logical_and.reduce([self.columns[name].codes == code for name, code in where]))

    def sums(self, inside: Mask) -> Sums:
        return Sums(self.terms[inside].sum(axis=0, keepdims=True))


def search(asked: Search) -> tuple[int, list[Found]]:
    """How many slices were tested, and those found; the one that is surely worst first: by the loss's lower end."""
    tested = _tested(asked)
    if not tested.where:
        return 0, []
    p_values, lowest = _examined(asked, tested)
    adjusted = _adjusted(p_values, [len(where) for where in tested.where])
    found: list[Found] = []
    told = np.zeros(len(asked.terms), bool)
    for at in np.argsort(-lowest, kind="stable"):
        if adjusted[at] > 1 - asked.confidence or len(found) == asked.settings.most:
            continue
        inside = asked.inside(tested.where[at])
        if not _adds(asked, inside & ~told):
            continue
        one = _found(asked, tested.where[at], inside, float(p_values[at]), float(adjusted[at]))
        if one.more >= asked.least_effect:
            found.append(one)
            told |= inside
    return len(tested.where), sorted(found, key=lambda one: -one.surely)


@dataclass(frozen=True)
class Tested:
    """The slices that have enough rows to be judged and leave enough, with their sums.

    wider: shape (slices, 3, terms), the sums of what each is part of and must be worse than the rest of: all rows, and
    for a slice of two columns the slices of either.
    """

    where: list[Where]
    sums: Sums
    wider: Array

    def beside(self, at: Any = slice(None)) -> list[Sums]:
        """The rest of what the slices (some of them) are part of."""
        return [Sums(wider - self.sums.of[at]) for wider in np.moveaxis(self.wider[at], -2, 0)]


def _tested(asked: Search) -> Tested:
    single = {name: sums_by(c.codes, len(c.names) + 1, asked.terms).of for name, c in asked.columns.items()}
    where: list[Where] = []
    none = np.empty((0, asked.terms.shape[1]))
    sums, wider = [none], [np.empty((0, 3, asked.terms.shape[1]))]
    for names in [*((name,) for name in asked.columns), *combinations(asked.paired, 2)]:
        columns = [asked.columns[name] for name in names]
        shape = tuple(len(column.names) + 1 for column in columns)  # the last of each: in no bin
        codes = np.ravel_multi_index(tuple(column.codes for column in columns), shape)
        here = sums_by(codes, int(np.prod(shape)), asked.terms)
        kept = np.flatnonzero(_enough(asked, here))
        places = np.column_stack(np.unravel_index(kept, shape))
        named = (places < np.array(shape) - 1).all(axis=1)
        kept, places = kept[named], places[named]
        where += [tuple(zip(names, place, strict=True)) for place in places.tolist()]
        every = np.broadcast_to(asked.total.of, (len(kept), none.shape[1]))
        sides = [single[name][at] for name, at in zip(names, places.T, strict=True)] if len(names) == 2 else [every] * 2
        sums.append(here.of[kept])
        wider.append(np.stack([every, *sides], axis=1))
    return Tested(where, Sums(np.concatenate(sums)), np.concatenate(wider))


def _enough(asked: Search, sums: Sums) -> Mask:
    least, rows = asked.settings.least_rows, len(asked.terms)
    enough = (sums.rows >= least) & (rows - sums.rows >= least)
    return enough & (sums.events() >= _LEAST_EVENTS) if asked.rows.binary else enough


def _examined(asked: Search, tested: Tested) -> tuple[Array, Array]:
    """The p-value of each slice, and about how much is avoidable in it at least; 1 and -infinity of those that are not
    looked at, block by block: all but the worst _EXAMINED suspects of one column, and of two."""
    p_values, lowest = np.ones(len(tested.where)), np.full(len(tested.where), -np.inf)
    suspects = _suspects(asked, tested)
    of_kind = ([at for at in suspects if len(tested.where[at]) == kind] for kind in (1, 2))
    for at, inside, blocks in chain(*(islice(_in_many_blocks(asked, tested, kind), _EXAMINED) for kind in of_kind)):
        part = tested.sums.take([at])
        times = spread_of_blocks(part, sums_by(blocks, int(blocks.max()) + 1, asked.terms[inside]))
        least = min(float(contrast(part, rest)[0]) for rest in tested.beside([at]))
        p_values[at] = p_value(least, times, effective(blocks))
        lowest[at] = (part.avoidable() - 2 * np.sqrt(times) * part.error())[0]
    return p_values, lowest


def _suspects(asked: Search, tested: Tested) -> list[int]:
    """The slices that a look that takes rows as independent, and so sees too much, finds worse than what is beside
    them, worst first."""
    few = np.min([part.rows for part in tested.beside()], axis=0) < asked.settings.least_rows
    fit = np.flatnonzero(~few)  # what leaves few rows of a wider slice is as good as that one
    sums, beside = tested.sums.take(fit), tested.beside(fit)
    chance = chi2.sf(np.min([contrast(sums, part) for part in beside], axis=0), 2)
    more = sums.avoidable() - np.max([part.avoidable() for part in beside], axis=0)
    seen = (more >= asked.least_effect / 2) & (chance <= 1 - asked.confidence)
    order = np.argsort(-(sums.avoidable() - 2 * sums.error()), kind="stable")
    return [int(at) for at in fit[order[seen[order]]]]


def _in_many_blocks(asked: Search, tested: Tested, slices: Sequence[int]) -> Iterator[tuple[int, Mask, Ints]]:
    """Those of the slices that are no matter of a few days, each with its rows and their blocks, numbered from 0."""
    for at in slices:
        inside = asked.inside(tested.where[at])
        blocks = np.unique(asked.blocks[inside], return_inverse=True)[1]
        if effective(blocks) >= _LEAST_BLOCKS:
            yield at, inside, blocks


def _adjusted(p_values: Array, kinds: Sequence[int]) -> Array:
    """`holm` of the slices of each kind for themselves, times the number of kinds."""
    adjusted, kind = np.empty_like(p_values), np.array(kinds)
    for one in np.unique(kind):
        adjusted[kind == one] = holm(p_values[kind == one]) * len(np.unique(kind))
    return np.minimum(adjusted, 1.0)


def holm(p_values: Array) -> Array:
    """Each test's least chance, of being wrong in any of them, with which it rejects."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    return np.minimum(adjusted, 1.0)


def _adds(asked: Search, inside: Mask) -> bool:
    """Whether so many rows, those of a slice that no slice before it has, are worse than the rest by themselves."""
    part = asked.sums(inside)
    if not _enough(asked, part)[0]:
        return False
    rest = asked.total - part
    more = (part.avoidable() - rest.avoidable())[0]
    return bool(more >= asked.least_effect and chi2.sf(contrast(part, rest)[0], 2) <= 1 - asked.confidence)


def _found(asked: Search, where: Where, inside: Mask, p: float, adjusted: float) -> Found:
    rows, part = asked.rows.take(np.flatnonzero(inside)), asked.sums(inside)
    loss = mean(saved(rows), rows.weight, asked.blocks[inside], asked.confidence)
    return Found(
        [(name, asked.columns[name].names[code]) for name, code in where],
        len(rows.label),
        _less(loss, float(part.by_chance()[0])),
        float((asked.total - part).avoidable()[0]),
        float(np.average(rows.score, weights=rows.weight)),
        float(np.average(rows.label, weights=rows.weight)),
        p,
        adjusted,
    )


def _less(figure: Figure, by: float) -> Figure:
    """An interval moved down; a slice that is found lies in several blocks, so it has one."""
    assert figure.value is not None
    assert figure.low is not None
    assert figure.high is not None
    return Figure(figure.value - by, figure.low - by, figure.high - by, figure.rows)
