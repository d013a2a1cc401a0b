"""Spearman's rank correlation of predictions with gold values: value, error, and the paired bootstrap.

A rank correlation is no mean over items. Its error comes from its influence function; what is claimed rests on a
bootstrap that resamples items for both candidates alike. Ids are ITEM or GROUP/ITEM; the statistic is averaged over
groups (the seeds that a training was repeated with), and an item is drawn with all its groups.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from itertools import groupby

Pairs = Mapping[str, tuple[float, float]]
"""Item → (prediction, gold) of one group."""
RESAMPLES = 2000


def by_group(predictions: Mapping[str, float], references: Mapping[str, float]) -> dict[str, Pairs]:
    """Group → its items. Raises ValueError for a prediction without a gold value or that is no number."""
    groups: dict[str, dict[str, tuple[float, float]]] = {}
    for key, value in predictions.items():
        if key not in references:
            raise ValueError(f"{key}: no gold value")
        if not math.isfinite(value):
            raise ValueError(f"{key}: {value} is no prediction")
        group, _, item = key.rpartition("/")
        groups.setdefault(group, {})[item] = (value, references[key])
    return dict(groups)


def spearman(groups: Mapping[str, Pairs]) -> float:
    """Mean over groups of the rank correlation, ties at their mid-rank. Raises ValueError where it is undefined."""
    if not groups:
        raise ValueError("no items")
    values = []
    for pairs in groups.values():
        sampled = _Ranked(pairs, list(pairs))
        value = sampled.correlation([1] * len(pairs))
        if value is None:
            raise ValueError("all predictions, or all gold values, are the same: a rank correlation is undefined")
        values.append(value)
    return math.fsum(values) / len(values)


def influences(groups: Mapping[str, Pairs]) -> dict[str, float]:
    """Item → value plus its influence (Croux and Dehon 2010): their mean is the statistic, their standard error its."""
    sums: dict[str, list[float]] = {}
    for pairs in groups.values():
        items = list(pairs)
        x, y = _levels([pairs[i][0] for i in items]), _levels([pairs[i][1] for i in items])
        rho = 12 * math.fsum(a * b for a, b in zip(x, y, strict=True)) / len(items) - 3
        above_x, above_y = _weight_above(x, y), _weight_above(y, x)
        for index, item in enumerate(items):
            influence = 12 * (x[index] * y[index] + above_x[index] + above_y[index]) - 3 * (rho + 3)
            sums.setdefault(item, []).append(influence)
    value = spearman(groups)
    return {item: value + math.fsum(parts) / len(parts) for item, parts in sums.items()}


def interval(value: float, stderr: float) -> tuple[float, float]:
    """95 % interval by Fisher's z (1915) with this standard error: it stays inside [-1, 1]."""
    inside = max(-1 + 1e-12, min(1 - 1e-12, value))
    centre, half = math.atanh(inside), 1.959963984540054 * stderr / (1 - inside**2)
    return math.tanh(centre - half), math.tanh(centre + half)


def bootstrap(
    before: Mapping[str, Pairs], after: Mapping[str, Pairs], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, tuple[float, float], float, int]:
    """Difference (after minus before) over the items that both have, 95 % interval, two-sided p-value, their number.

    Efron and Tibshirani 1993, chapter 13 (percentiles). Raises ValueError with fewer than three items in common.
    """
    items = sorted(set.intersection(*(set(pairs) for pairs in (*before.values(), *after.values()))))
    if len(items) < 3:
        raise ValueError("fewer than three items in common")
    sides = [[_Ranked(pairs, items) for pairs in side.values()] for side in (before, after)]
    observed = _difference(sides, [1] * len(items))
    if observed is None:
        raise ValueError("a rank correlation is undefined on the items in common")
    if all(before.get(group) == pairs for group, pairs in after.items()) and len(before) == len(after):
        return 0.0, (0.0, 0.0), 1.0, len(items)
    rng, places, drawn = random.Random(seed), range(len(items)), []
    for _ in range(resamples):
        counts = [0] * len(items)
        for place in rng.choices(places, k=len(items)):
            counts[place] += 1
        if (difference := _difference(sides, counts)) is not None:
            drawn.append(difference)
    drawn.sort()
    low, high = drawn[int(0.025 * len(drawn))], drawn[min(len(drawn) - 1, int(0.975 * len(drawn)))]
    below, above = sum(d <= 0 for d in drawn), sum(d >= 0 for d in drawn)
    p_value = min(1.0, 2 * (min(below, above) + 1) / (len(drawn) + 1))
    return observed, (low, high), p_value, len(items)


def _difference(sides: Sequence[Sequence[_Ranked]], counts: Sequence[int]) -> float | None:
    means = []
    for side in sides:
        values = [group.correlation(counts) for group in side]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        means.append(math.fsum(known) / len(known))
    return means[1] - means[0]


class _Ranked:
    """One group's pairs, sorted once: a resample needs one pass for its ranks."""

    def __init__(self, pairs: Pairs, items: Sequence[str]) -> None:
        self._orders = [_ties([pairs[item][column] for item in items]) for column in (0, 1)]
        self._n = len(items)

    def correlation(self, counts: Sequence[int]) -> float | None:
        """Of the items taken `counts` times each; None where one side is constant."""
        first, second = (self._ranks(order, counts) for order in self._orders)
        total = sum(counts)
        middle = (total + 1) / 2
        product = square1 = square2 = 0.0
        for count, one, two in zip(counts, first, second, strict=True):
            if count:
                one -= middle
                two -= middle
                product += count * one * two
                square1 += count * one * one
                square2 += count * two * two
        return product / math.sqrt(square1 * square2) if square1 > 0 and square2 > 0 else None

    def _ranks(self, order: Sequence[tuple[int, ...]], counts: Sequence[int]) -> list[float]:
        ranks, passed = [0.0] * self._n, 0
        for tied in order:
            if len(tied) == 1:
                place = tied[0]
                count = counts[place]
                ranks[place] = passed + (count + 1) / 2
            else:
                count = sum([counts[place] for place in tied])
                middle = passed + (count + 1) / 2
                for place in tied:
                    ranks[place] = middle
            passed += count
        return ranks


def _ties(values: Sequence[float]) -> list[tuple[int, ...]]:
    """Places in ascending order of value, equal values together."""
    order = sorted(range(len(values)), key=values.__getitem__)
    return [tuple(places) for _, places in groupby(order, key=values.__getitem__)]


def _levels(values: Sequence[float]) -> list[float]:
    """Mid-ranks as levels from 0 to 1, scaled so that they have the spread of a uniform variable."""
    levels, passed, n = [0.0] * len(values), 0, len(values)
    for tied in _ties(values):
        for place in tied:
            levels[place] = (passed + len(tied) / 2) / n
        passed += len(tied)
    spread = math.fsum((level - 0.5) ** 2 for level in levels) / n
    scale = math.sqrt(1 / 12 / spread) if spread else 1.0
    return [0.5 + (level - 0.5) * scale for level in levels]


def _weight_above(levels: Sequence[float], weights: Sequence[float]) -> list[float]:
    """For each item the mean of `weights` over the items with a higher level, its own and equal ones by half."""
    order = _ties(levels)
    result, above, n = [0.0] * len(levels), 0.0, len(levels)
    for tied in reversed(order):
        here = math.fsum(weights[place] for place in tied)
        for place in tied:
            result[place] = (above + here / 2) / n
        above += here
    return result
