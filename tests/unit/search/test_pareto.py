"""Several objectives."""

from __future__ import annotations

from ftagent.core.types import Direction
from ftagent.search import pareto

BOTH: tuple[Direction, Direction] = ("maximize", "minimize")


def test_the_front_is_what_nothing_dominates() -> None:
    points = [(0.9, 10.0), (0.8, 5.0), (0.8, 6.0), (0.95, 20.0), (0.7, 5.0)]
    assert pareto.front(points, BOTH) == [0, 1, 3]
    assert pareto.front([(1.0, 1.0), (1.0, 1.0)], BOTH) == [0, 1]
    assert pareto.front([], BOTH) == []


def test_scalarising_prefers_what_dominates_and_reaches_all_of_a_front() -> None:
    points = [(0.9, 10.0), (0.6, 1.0), (0.85, 2.0), (0.5, 12.0)]
    winners = set()
    for seed in range(30):
        values = pareto.scalarise(points, BOTH, seed)
        assert values[3] == min(values)
        winners.add(values.index(max(values)))
    assert winners == {0, 1, 2}


def test_the_same_seed_gives_the_same_weights() -> None:
    points = [(0.9, 10.0), (0.6, 1.0)]
    assert pareto.scalarise(points, BOTH, 3) == pareto.scalarise(points, BOTH, 3)
    assert pareto.scalarise([(1.0, 1.0)], BOTH, 0) == [0.0]
    assert pareto.scalarise([], BOTH, 0) == []
