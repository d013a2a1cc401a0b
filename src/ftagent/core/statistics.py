"""Intervals and paired tests. What is *claimed* rests on these; what is *tried next* is policy.py's business."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftagent.core import rank_statistics
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
    half = _student_t_975(n - 1) * stderr
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


def contributions(score: Score) -> Mapping[str, float]:
    """Item → its part in the value: their mean is the value, and their spread its standard error."""
    if score.statistic == "mean":
        return score.outcomes
    return rank_statistics.influences(rank_statistics.by_group(score.outcomes, score.references))


def pooled(score: Score, extra: Score) -> Score:
    """Both scores' items as one. Raises ValueError when they share an id."""
    if score.outcomes.keys() & extra.outcomes.keys():
        raise ValueError("the two splits share an item")
    outcomes = {**score.outcomes, **extra.outcomes}
    if score.statistic == "spearman":
        return spearman_score(score.metric, outcomes, {**score.references, **extra.references})
    return score_of(score.metric, outcomes, direction=score.direction, samples=score.samples)


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
    (Fisher 1935); a paired bootstrap for rank correlations. Raises ValueError when the two share no item.
    """
    if candidate.statistic == "spearman":
        difference, _, p_value, n = _bootstrap(baseline, candidate, seed)
        return _verdict(candidate, p_value, difference, n, "paired bootstrap", comparisons)
    shared = [key for key in baseline.outcomes if key in candidate.outcomes]
    if not shared:
        raise ValueError(f"{baseline.metric}: baseline and candidate share no item")
    pairs = [(baseline.outcomes[key], candidate.outcomes[key]) for key in shared]
    differences = [after - before for before, after in pairs]
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
    shared = [key for key in before.outcomes if key in after.outcomes]
    n = len(shared)
    if n < 2:
        raise ValueError(f"{before.metric}: fewer than two items in common")
    pairs = [(before.outcomes[key], after.outcomes[key]) for key in shared]
    differences = [new - old for old, new in pairs]
    mean = math.fsum(differences) / n
    if all(value in (0.0, 1.0) for pair in pairs for value in pair):
        wins, losses = (differences.count(1.0) + 1) / (n + 2), (differences.count(-1.0) + 1) / (n + 2)
        half = Z95 * math.sqrt((wins + losses - (wins - losses) ** 2) / (n + 2))
        low, high = max(-1.0, wins - losses - half), min(1.0, wins - losses + half)
    else:
        variance = math.fsum((value - mean) ** 2 for value in differences) / (n - 1)
        half = _student_t_975(n - 1) * math.sqrt(variance / n)
        low, high = mean - half, mean + half
    return mean, (low, high), n


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


def _student_t_975(degrees: int) -> float:
    """97.5 % point of Student's t (Cornish–Fisher expansion, Abramowitz and Stegun 26.7.5; exact for 1 and 2)."""
    if degrees <= 2:
        return {0: 0.0, 1: 12.706204736, 2: 4.302652730}[max(degrees, 0)]
    z, n = Z95, float(degrees)
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + g1 / n + g2 / n**2 + g3 / n**3 + g4 / n**4
