"""Rank correlations: the value against SciPy, the error against repetition, the bootstrap against its promise."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftagent.core import policy, rank_statistics, student
from ftagent.core.statistics import (
    compare,
    paired_difference,
    pooled,
    repeated_score,
    spearman_score,
    trained_score,
)

GOLD = st.lists(st.tuples(st.integers(0, 8), st.integers(-5, 5)), min_size=4, max_size=40)


def sample(n: int, noise: float, seed: int, group: str = "") -> tuple[dict[str, float], dict[str, float]]:
    rng = random.Random(seed)
    gold = {f"{group}{i}": round(rng.uniform(0, 5), 1) for i in range(n)}
    return {key: value + rng.gauss(0, noise) for key, value in gold.items()}, gold


@settings(deadline=None)
@given(GOLD)
def test_value_is_scipys_with_ties(pairs: list[tuple[int, int]]) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    predictions = {str(i): float(a) for i, (a, _) in enumerate(pairs)}
    gold = {str(i): float(b) for i, (_, b) in enumerate(pairs)}
    if len(set(predictions.values())) == 1 or len(set(gold.values())) == 1:
        with pytest.raises(ValueError, match="undefined"):
            spearman_score("spearman", predictions, gold)
        return
    expected = scipy_stats.spearmanr(list(predictions.values()), list(gold.values())).statistic
    groups = rank_statistics.by_group(predictions, gold)
    assert rank_statistics.spearman(groups) == pytest.approx(expected, abs=1e-9)


def test_standard_error_is_the_spread_over_repetitions() -> None:
    scores = [spearman_score("spearman", *sample(300, 1.0, seed)) for seed in range(120)]
    values = [score.value for score in scores]
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    assert math.fsum(s.stderr for s in scores) / len(scores) == pytest.approx(spread, rel=0.25)
    covered = sum(score.ci95[0] <= mean <= score.ci95[1] for score in scores)
    assert covered >= 0.88 * len(scores)


def test_a_real_difference_is_claimed_and_none_is_not() -> None:
    good, gold = sample(400, 0.8, 1)
    rng = random.Random(2)
    worse = {key: value + rng.gauss(0, 1.0) for key, value in good.items()}
    base, better = spearman_score("spearman", worse, gold), spearman_score("spearman", good, gold)
    test = compare(base, better)
    assert (test.verdict, test.name) == ("improved", "paired bootstrap")
    assert compare(better, base).verdict == "worse"
    assert compare(better, better).verdict == "tie"
    difference, (low, high), n = paired_difference(base, better)
    assert low < difference < high
    assert low > 0
    assert n == 400
    assert not policy.within_noise(base, better)


def test_false_claims_stay_rare() -> None:
    """Two candidates that are equally good, by construction."""
    claims = 0
    for seed in range(60):
        rng, (_, gold) = random.Random(seed), sample(60, 1.0, seed)
        one, other = ({key: value + rng.gauss(0, 1.0) for key, value in gold.items()} for _ in range(2))
        scores = [rank_statistics.by_group(side, gold) for side in (one, other)]
        claims += rank_statistics.bootstrap(scores[0], scores[1], seed, resamples=300)[2] < 0.05
    assert claims <= 8  # binomial(60, 0.05): more than 8 with probability 0.003


def test_seeds_are_groups_and_items_stay_together() -> None:
    first = spearman_score("spearman", *sample(200, 0.5, 1, "seed0/"))
    second = spearman_score("spearman", *sample(200, 0.5, 1, "seed1/"))
    both = pooled(first, second)
    assert both.value == pytest.approx(first.value)
    assert both.n == 200
    assert both.samples == 2
    assert both.stderr == pytest.approx(first.stderr)
    with pytest.raises(ValueError, match="share"):
        pooled(first, first)


def test_predictions_without_gold_or_number_are_refused() -> None:
    with pytest.raises(ValueError, match="no gold value"):
        rank_statistics.by_group({"a": 1.0}, {})
    with pytest.raises(ValueError, match="no prediction"):
        rank_statistics.by_group({"a": math.nan}, {"a": 1.0})


@pytest.mark.parametrize(("t", "degrees"), [(0.0, 3), (0.5, 1), (2.0, 2), (-3.1, 5), (1.7, 30), (12.0, 2), (40.0, 4)])
def test_student_p_is_scipys(t: float, degrees: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert student.two_sided_p(t, degrees) == pytest.approx(2 * stats.t.sf(abs(t), degrees), rel=1e-9, abs=1e-15)


def test_whole_trainings_are_compared_by_their_seeds() -> None:
    default = trained_score("accuracy", {"seed0/run0": 0.70})
    better = trained_score("accuracy", {"seed0/run0": 0.95})
    assert policy.within_noise(default, better), "one training each: the noise is unknown"
    assert compare(default, better).verdict == "tie"
    default = pooled(default, trained_score("accuracy", {"seed1/run0": 0.72, "seed2/run0": 0.71}))
    better = pooled(better, trained_score("accuracy", {"seed1/run0": 0.95, "seed2/run0": 0.96}))
    test = compare(default, better)
    assert (test.verdict, test.name, test.n) == ("improved", "paired t", 3)
    assert not policy.within_noise(default, better)
    assert better.ci95[0] < better.value < better.ci95[1]


def test_an_item_that_two_seeds_measured_counts_once() -> None:
    once = repeated_score("accuracy", {f"seed0/{i}": float(i % 2) for i in range(40)})
    twice = pooled(once, repeated_score("accuracy", {f"seed1/{i}": float(i % 2) for i in range(40)}))
    assert (twice.n, twice.samples, twice.value) == (40, 2, 0.5)
    assert twice.stderr == once.stderr
    assert compare(once, twice).p_value == 1.0


def test_trainings_that_ignore_their_seed_prove_nothing() -> None:
    default, better = (
        trained_score("accuracy", {f"seed{n}/run0": value for n in range(3)}) for value in (0.7, 0.9)
    )  # fmt: skip
    assert compare(default, better).verdict == "tie"
