"""The interval of a paired difference holds what it promises, for outcomes of 0 and 1 and for others."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from ftagent.core.statistics import paired_difference, score_of
from ftagent.core.types import Score


def scored(values: list[float], prefix: str = "i") -> Score:
    return score_of("m", {f"{prefix}{index}": value for index, value in enumerate(values)})


def binary(rng: random.Random, n: int) -> tuple[list[float], list[float], float]:
    """Before and after with 10 % losses and 30 % wins: the true difference is 0.2."""
    draws = [rng.random() for _ in range(n)]
    before = [float(d < 0.1 or d > 0.8) for d in draws]
    return before, [float(0.1 <= d < 0.4 or d > 0.8) for d in draws], 0.2


def graded(rng: random.Random, n: int) -> tuple[list[float], list[float], float]:
    before = [rng.gauss(0, 1) for _ in range(n)]
    return before, [value + rng.gauss(0.5, 2) for value in before], 0.5


@pytest.mark.parametrize("draw", [binary, graded])
@pytest.mark.parametrize("n", [10, 60])
def test_nineteen_of_twenty_intervals_hold_the_truth(
    draw: Callable[[random.Random, int], tuple[list[float], list[float], float]], n: int
) -> None:
    rng, held, trials = random.Random(7), 0, 1500
    for _ in range(trials):
        before, after, truth = draw(rng, n)
        mean, (low, high), count = paired_difference(scored(before), scored(after))
        assert low <= mean <= high
        assert count == n
        held += low <= truth <= high
    assert 0.935 <= held / trials <= 0.985


def test_equal_outcomes_leave_doubt() -> None:
    mean, (low, high), _ = paired_difference(scored([1.0, 0.0] * 10), scored([1.0, 0.0] * 10))
    assert mean == 0.0
    assert -0.2 < low < 0.0 < high < 0.2


def test_only_shared_items_count_and_two_are_needed() -> None:
    before = score_of("m", {"a": 0.0, "b": 1.0, "c": 0.0})
    after = score_of("m", {"a": 1.0, "b": 1.0, "d": 0.0})
    assert paired_difference(before, after)[0] == 0.5
    assert paired_difference(before, after)[2] == 2
    with pytest.raises(ValueError, match="two items"):
        paired_difference(scored([1.0, 1.0], "x"), scored([1.0, 1.0], "y"))
