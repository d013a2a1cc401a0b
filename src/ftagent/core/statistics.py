"""Intervals and paired tests. What is *claimed* rests on these; what is *tried next* is policy.py's business."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ftagent.core import rank_statistics, student
from ftagent.core.types import Direction, Score, Verdict

Z95 = 1.959963984540054
ALPHA = 0.05
_RESAMPLES = 10_000


def wilson(mean: float, n: float) -> tuple[float, float]:
    """95 % interval of a proportion `mean` over `n` independent items (Wilson 1927); `n` may be fractional.

    It stays inside [0, 1], is sound for small n, and is never empty when all items agree.
    """
    square = Z95 * Z95
    centre = (mean + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(max(0.0, mean * (1 - mean) / n + square / (4 * n * n)))
    return max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))


def mean_interval(values: Sequence[float]) -> tuple[float, float, tuple[float, float]]:
    """Mean, standard error and 95 % interval of per-item values; items are the unit, samples are averaged before.

    Values in [0, 1] get Wilson's interval with the effective number of items (Korn and Graubard 1998), which for
    0/1 values is n itself; other values get Student's t. Raises ValueError when there are none.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no items")
    mean = math.fsum(values) / n
    variance = math.fsum([(value - mean) ** 2 for value in values]) / n
    if min(values) >= 0.0 and max(values) <= 1.0:
        stderr = math.sqrt(variance / n)
        # Bounded values spread at most as 0/1 values do: they are worth at least n items.
        effective = mean * (1 - mean) / (stderr * stderr) if stderr > 0 else float(n)
        return mean, stderr, wilson(mean, max(float(n), effective))
    stderr = math.sqrt(variance / max(1, n - 1))
    half = student.quantile_975(n - 1) * stderr
    return mean, stderr, (mean - half, mean + half)


def score_of(
    metric: str,
    outcomes: Mapping[str, float],
    *,
    direction: Direction = "maximize",
    samples: int = 1,
    details: Mapping[str, float] | None = None,
    errors: Mapping[str, int] | None = None,
) -> Score:
    """The Score of a metric that is the mean over items (`outcomes`: id → value). Raises ValueError without items."""
    mean, stderr, ci95 = mean_interval(list(outcomes.values()))
    return Score(
        metric=metric,
        value=mean,
        n=len(outcomes),
        stderr=stderr,
        ci95=ci95,
        direction=direction,
        samples=samples,
        outcomes=dict(outcomes),
        details=dict(details or {}),
        errors=dict(errors or {}),
    )


def spearman_score(
    metric: str,
    predictions: Mapping[str, float],
    references: Mapping[str, float],
    *,
    details: Mapping[str, float] | None = None,
) -> Score:
    """The Score of a rank correlation; ids are ITEM or GROUP/ITEM. Raises ValueError where it is undefined."""
    kept = {key: references[key] for key in predictions if key in references}
    groups = rank_statistics.by_group(predictions, kept)
    value = rank_statistics.spearman(groups)
    influences = list(rank_statistics.influences(groups).values())
    mean, n = math.fsum(influences) / len(influences), len(influences)
    stderr = math.sqrt(math.fsum((part - mean) ** 2 for part in influences) / max(1, n - 1) / n)
    return Score(
        metric=metric, value=value, n=n, stderr=stderr, ci95=rank_statistics.interval(value, stderr),
        samples=len(groups), outcomes=dict(predictions), statistic="spearman", references=kept,
        details=dict(details or {}),
    )  # fmt: skip


def repeated_score(
    metric: str,
    outcomes: Mapping[str, float],
    *,
    direction: Direction = "maximize",
    details: Mapping[str, float] | None = None,
) -> Score:
    """The Score of the same items measured once or more, ids GROUP/ITEM: an item counts once. Raises ValueError."""
    items = score_of(metric, _by_item(outcomes), direction=direction, details=details)
    samples = len({key.rpartition("/")[0] for key in outcomes})
    return replace(items, outcomes=dict(outcomes), statistic="item_mean", samples=samples)


def trained_score(
    metric: str,
    runs: Mapping[str, float],
    *,
    direction: Direction = "maximize",
    details: Mapping[str, float] | None = None,
) -> Score:
    """The Score of whole trainings, one value each: they are the items. The noise of a single one is unknown, and its
    interval is that single value. Raises ValueError without any."""
    values, n = list(runs.values()), len(runs)
    if not n:
        raise ValueError("no trainings")
    mean = math.fsum(values) / n
    stderr = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / max(1, n - 1) / n)
    half = student.quantile_975(n - 1) * stderr
    return Score(metric, mean, n, stderr, (mean - half, mean + half), direction, 1, dict(runs), "runs",
                 details=dict(details or {}))  # fmt: skip


def _by_item(outcomes: Mapping[str, float]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for key, value in outcomes.items():
        found.setdefault(key.rpartition("/")[2], []).append(value)
    return {item: math.fsum(values) / len(values) for item, values in found.items()}


def contributions(score: Score) -> Mapping[str, float]:
    """Item → its part in the value: their mean is the value, and their spread its standard error."""
    if score.statistic == "item_mean":
        return _by_item(score.outcomes)
    if score.statistic != "spearman":
        return score.outcomes
    return rank_statistics.influences(rank_statistics.by_group(score.outcomes, score.references))


def pooled(score: Score, extra: Score) -> Score:
    """Both scores' items as one. Raises ValueError when they share an id."""
    if score.outcomes.keys() & extra.outcomes.keys():
        raise ValueError("the two splits share an item")
    outcomes = {**score.outcomes, **extra.outcomes}
    if score.statistic == "spearman":
        return spearman_score(score.metric, outcomes, {**score.references, **extra.references})
    if score.statistic == "mean":
        return score_of(score.metric, outcomes, direction=score.direction, samples=score.samples)
    joined = trained_score if score.statistic == "runs" else repeated_score
    return joined(score.metric, outcomes, direction=score.direction)


@dataclass(frozen=True)
class PairedTest:
    """Candidate against baseline on the items that both have. `difference` is candidate minus baseline."""

    verdict: Verdict
    p_value: float
    difference: float
    n: int
    name: str


def compare(baseline: Score, candidate: Score, comparisons: int = 1, seed: int = 0) -> PairedTest:
    """Is the candidate better? At most 5 % false claims over `comparisons` such questions (Bonferroni).

    Two-sided: McNemar's exact test (1947) where outcomes are 0 or 1, else a paired sign-flip permutation test
    (Fisher 1935); a paired bootstrap for rank correlations; Student's paired t for whole trainings, which are few.
    Raises ValueError when the two share no item.
    """
    if candidate.statistic == "spearman":
        difference, _, p_value, n = _bootstrap(baseline, candidate, seed)
        return _verdict(candidate, p_value, difference, n, "paired bootstrap", comparisons)
    pairs = _pairs(baseline, candidate)
    if not pairs:
        raise ValueError(f"{baseline.metric}: baseline and candidate share no item")
    differences = [after - before for before, after in pairs]
    if candidate.statistic == "runs":
        mean = math.fsum(differences) / len(differences)
        return _verdict(candidate, paired_t(differences), mean, len(pairs), "paired t", comparisons)
    if all(value in (0.0, 1.0) for pair in pairs for value in pair):
        wins, losses = differences.count(1.0), differences.count(-1.0)
        p_value, name = mcnemar_exact(wins, losses), "McNemar exact"
    else:
        p_value, name = sign_flip(differences, seed), "paired permutation"
    difference = math.fsum(differences) / len(differences)
    return _verdict(candidate, p_value, difference, len(pairs), name, comparisons)


def _verdict(candidate: Score, p_value: float, difference: float, n: int, name: str, comparisons: int) -> PairedTest:
    good = difference if candidate.direction == "maximize" else -difference
    verdict: Verdict = "tie"
    if p_value < ALPHA / max(1, comparisons):
        verdict = "improved" if good > 0 else "worse"
    return PairedTest(verdict, p_value, difference, n, name)


def _bootstrap(before: Score, after: Score, seed: int = 0) -> tuple[float, tuple[float, float], float, int]:
    sides = [rank_statistics.by_group(score.outcomes, score.references) for score in (before, after)]
    return rank_statistics.bootstrap(sides[0], sides[1], seed)


def paired_difference(before: Score, after: Score) -> tuple[float, tuple[float, float], int]:
    """Mean of `after` minus `before` over the items that both have, its 95 % interval, and their number.

    Bonett and Price's adjusted interval (2012) where outcomes are 0 or 1, the paired bootstrap's for rank
    correlations, else Student's t. Raises ValueError when the two share fewer than two items.
    """
    if after.statistic == "spearman":
        difference, between, _, count = _bootstrap(before, after)
        return difference, between, count
    pairs = _pairs(before, after)
    n = len(pairs)
    if n < 2:
        raise ValueError(f"{before.metric}: fewer than two items in common")
    differences = [new - old for old, new in pairs]
    mean = math.fsum(differences) / n
    if all(value in (0.0, 1.0) for pair in pairs for value in pair):
        wins, losses = (differences.count(1.0) + 1) / (n + 2), (differences.count(-1.0) + 1) / (n + 2)
        half = Z95 * math.sqrt((wins + losses - (wins - losses) ** 2) / (n + 2))
        low, high = max(-1.0, wins - losses - half), min(1.0, wins - losses + half)
    else:
        variance = math.fsum((value - mean) ** 2 for value in differences) / (n - 1)
        half = student.quantile_975(n - 1) * math.sqrt(variance / n)
        low, high = mean - half, mean + half
    return mean, (low, high), n


def _pairs(before: Score, after: Score) -> list[tuple[float, float]]:
    """Values of the items that both have."""
    old, new = contributions(before), contributions(after)
    return [(old[key], new[key]) for key in old if key in new]


def paired_t(differences: Sequence[float]) -> float:
    """Two-sided p-value of the mean of `differences` (Student 1908); 1 where there are fewer than two."""
    n = len(differences)
    if n < 2:
        return 1.0
    mean = math.fsum(differences) / n
    error = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1) / n)
    if error == 0:
        return 1.0  # the seed changes nothing, so the noise is as unknown as with one training
    return student.two_sided_p(mean / error, n - 1)


def mcnemar_exact(wins: int, losses: int) -> float:
    """Two-sided exact p-value of `wins` against `losses` discordant pairs under a fair coin."""
    n = wins + losses
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / (1 << n))


def sign_flip(differences: list[float], seed: int = 0) -> float:
    """Two-sided p-value of the mean under random signs; exact up to 12 non-zero pairs, else 10,000 draws."""
    nonzero = [value for value in differences if value]
    if not nonzero:
        return 1.0
    observed = abs(math.fsum(nonzero)) * (1 - 1e-12)
    if len(nonzero) <= 12:
        exact: int = sum(
            abs(math.fsum(-v if mask >> i & 1 else v for i, v in enumerate(nonzero))) >= observed
            for mask in range(2 ** len(nonzero))
        )
        return exact / (1 << len(nonzero))
    rng = random.Random(seed)
    hits = 0
    for _ in range(_RESAMPLES):
        mask = rng.getrandbits(len(nonzero))
        hits += abs(sum(-v if mask >> i & 1 else v for i, v in enumerate(nonzero))) >= observed
    return (hits + 1) / (_RESAMPLES + 1)
