"""One parameter at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

from ftagent.core.types import Parameter
from ftagent.search import Trial, univariate
from unit.search.conftest import DEFAULT, SPACE, quality

RATE = SPACE[0]


def tuned(metric: Callable[[float], float | None], parameter: Parameter, rounds: int, default: float) -> list[Trial]:
    trials = [Trial({parameter.name: default}, metric(default))]
    tried = [default]
    for left in range(rounds, 0, -1):
        value = univariate.suggest([parameter], "maximize", trials, parameter.name, tried, left, 0)
        tried.append(value)
        trials.append(Trial({parameter.name: value}, metric(value)))
    return trials


@pytest.mark.parametrize("best", [6e-6, 5e-5, 1e-4, 3e-4, 6e-4, 1.2e-3])
@pytest.mark.parametrize("default", [2e-5, 2e-4])
def test_three_rounds_gain_most_of_what_one_parameter_can_give(best: float, default: float) -> None:
    def metric(rate: float) -> float:
        return -(abs(math.log10(rate / best)) ** 2)

    trials = tuned(metric, RATE, 3, default)
    reached = max(trial.value for trial in trials if trial.value is not None)
    # Within a third of a decade, or four fifths of the gain.
    assert reached >= max(0.2 * metric(default), -0.11) or reached >= -0.11, [t.params for t in trials]


def test_a_cliff_is_stepped_back_from() -> None:
    trials = tuned(lambda rate: math.log10(rate) if rate < 4e-4 else -9.0, RATE, 5, 2e-5)
    reached = max(trial.value for trial in trials if trial.value is not None)
    assert reached > math.log10(1.5e-4)
    assert reached < math.log10(4e-4)


def test_failures_are_left_behind() -> None:
    trials = tuned(lambda rate: None if rate > 1e-4 else -rate, RATE, 4, 2e-5)
    assert any(trial.params["learning_rate"] < 1e-5 for trial in trials)


@pytest.mark.parametrize("parameter", [p for p in SPACE if p.tunable], ids=lambda p: p.name)
def test_values_are_new_and_in_the_range_until_none_is_left(parameter: Parameter) -> None:
    trials = [Trial({parameter.name: parameter.default}, 0.0)]
    tried = [parameter.default]
    for left in (3, 2, 1):
        value = univariate.suggest([parameter], "maximize", trials, parameter.name, tried, left, 0)
        assert value in parameter.choices or parameter.low <= value <= parameter.high
        if parameter.name != "loss" or left > 1:
            assert value not in tried
        tried.append(value)
        trials.append(Trial({parameter.name: value}, float(len(tried))))


def test_the_learning_rate_comes_first_and_what_is_fixed_never() -> None:
    names = univariate.priorities(SPACE, 9)
    assert names[0] == "learning_rate"
    assert "output" not in names
    assert univariate.priorities(SPACE, 2) == names[:2]
    shuffled = (SPACE[3], SPACE[4], SPACE[1], SPACE[0])
    assert univariate.priorities(shuffled, 1) == ("learning_rate",)


def finished(keys: Sequence[str], rounds: int) -> list[Trial]:
    trials = [Trial(DEFAULT, quality(DEFAULT))]
    while (now := univariate.state(SPACE, "maximize", trials, keys, rounds)) is not None:
        value = univariate.suggest(SPACE, "maximize", trials, now.key, now.tried_values, now.rounds_left, 0)
        params = {**now.base, now.key: value}
        trials.append(Trial(params, quality(params)))
    return trials


def test_each_key_gets_its_rounds_from_the_best_so_far() -> None:
    trials = finished(("learning_rate", "loss", "epochs"), 3)
    changed = [[n for n in DEFAULT if trial.params[n] != DEFAULT[n]] for trial in trials]
    assert len(trials) == 1 + 3 + 2 + 3, "the loss has two other values only"
    assert changed[1:4] == [["learning_rate"]] * 3
    best = max(trials[:4], key=lambda trial: trial.value or -9.0).params["learning_rate"]
    assert {trial.params["learning_rate"] for trial in trials[4:]} == {best}
    assert max(trial.value or -9.0 for trial in trials) > 0.25 * quality(DEFAULT)


def test_the_state_counts_down() -> None:
    trials = [Trial(DEFAULT, 0.0)]
    now = univariate.state(SPACE, "maximize", trials, ("learning_rate",), 2)
    assert now is not None
    assert (now.key, now.rounds_left, now.tried_values) == ("learning_rate", 2, (2e-5,))
    trials.append(Trial({**DEFAULT, "learning_rate": 1e-4}, None))
    now = univariate.state(SPACE, "maximize", trials, ("learning_rate",), 2)
    assert now is not None
    assert (now.rounds_left, now.tried_values, now.base) == (1, (2e-5, 1e-4), DEFAULT)
    trials.append(Trial({**DEFAULT, "learning_rate": 5e-5}, 1.0))
    assert univariate.state(SPACE, "maximize", trials, ("learning_rate",), 2) is None
