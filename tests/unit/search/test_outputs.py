"""What a model is told of trials."""

from __future__ import annotations

import random

from ftagent.search import Trial
from ftagent.search.outputs import expected, learnable


def test_bad_trials_are_near_each_other_however_bad() -> None:
    values = learnable([Trial({}, v) for v in (0.80, 0.81, 0.79, 0.78, 0.10, -50.0)], "maximize")
    assert list(values.argsort()) == [5, 4, 3, 2, 0, 1]
    assert values[0] - values[3] > 0.05 * (values[3] - values[5]), "0.0004 of it without the warping"


def test_feasible_comes_before_infeasible_before_failed() -> None:
    trials = [Trial({}, 0.1), Trial({}, 9.0, violation=0.1), Trial({}, 9.0, violation=2.0), Trial({}, None)]
    assert list(learnable(trials, "maximize").argsort()[::-1]) == [0, 1, 2, 3]


def test_the_direction_and_the_unit_do_not_matter() -> None:
    rng = random.Random(0)
    values = [rng.gauss(0, 1) for _ in range(9)]
    up = learnable([Trial({}, v) for v in values], "maximize")
    down = learnable([Trial({}, 5 - 100 * v) for v in values], "minimize")
    assert abs(up - down).max() < 1e-9


def test_a_stopped_trial_counts_as_those_that_stood_like_it() -> None:
    done = [Trial({}, v, curve=((5, v / 2), (10, v))) for v in (0.2, 0.4, 0.6)]
    stopped = Trial({}, None, curve=((5, 0.22),), stopped=True)
    assert expected(stopped, [*done, stopped], "maximize") == 0.4
    assert expected(Trial({}, None, curve=((5, 0.01),), stopped=True), done, "maximize") == 0.2
    assert expected(Trial({}, None, stopped=True), done, "maximize") is None
