"""Joint search: valid, repeatable, quick, and sound where trials fail."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from ftagent.core.types import Parameter
from ftagent.search import Trial, joint
from unit.search.conftest import DEFAULT, SPACE, quality, search, valid


def test_what_is_suggested_is_in_the_space(seed: int) -> None:
    for trial in search(quality, 16, seed):
        assert valid(trial.params), trial.params


def test_the_same_trials_and_seed_give_the_same_suggestion(seed: int) -> None:
    trials = search(quality, 7, seed)
    assert joint.suggest(SPACE, "maximize", trials, seed) == joint.suggest(SPACE, "maximize", trials, seed)
    assert search(quality, 4, seed) != search(quality, 4, seed + 10)


def test_no_variable_of_the_environment_changes_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = search(quality, 7)
    before = joint.suggest(SPACE, "maximize", trials, 0)
    monkeypatch.setenv("PRIOR", "print('code of whoever sets a variable')")
    assert joint.suggest(SPACE, "maximize", trials, 0) == before


def test_minimising_is_maximising_the_negative() -> None:
    most = search(quality, 9)
    least = search(lambda params: -quality(params), 9, direction="minimize")
    assert [trial.params for trial in most] == [trial.params for trial in least]


def test_twenty_trials_gain_almost_all_there_is() -> None:
    gains = []
    for seed in range(4):
        trials = search(quality, 20, seed)
        best = trials[joint.recommend(SPACE, "maximize", trials)]
        assert best.value is not None
        gains.append(1 - best.value / quality(DEFAULT))
    # 20 random trials gain 0.89 on average.
    assert sorted(gains)[1] > 0.95, gains
    assert min(gains) > 0.85, gains


@pytest.mark.parametrize("value", [None, math.nan, math.inf, 0.5])
def test_trials_that_all_failed_or_are_all_the_same_lead_nowhere_strange(value: float | None) -> None:
    trials = search(lambda _: value, 8)
    assert all(valid(trial.params) for trial in trials)
    assert len({tuple(trial.params.values()) for trial in trials}) == 8
    assert joint.recommend(SPACE, "maximize", trials) in (range(8) if value == 0.5 else [0])


def test_a_crash_is_no_reason_to_stay_away_from_the_best() -> None:
    def crashing(params: Mapping[str, Any]) -> float | None:
        return None if params["learning_rate"] > 1e-3 else quality(params)

    trials = search(crashing, 20)
    best = trials[joint.recommend(SPACE, "maximize", trials)]
    assert best.value is not None
    assert best.value > 0.11 * quality(DEFAULT)
    assert sum(trial.value is None for trial in trials) < 8


def test_what_is_pending_is_not_suggested_again() -> None:
    trials = search(quality, 6)
    pending: list[dict[str, Any]] = []
    for _ in range(4):
        pending.append(joint.suggest(SPACE, "maximize", trials, 0, pending))
    everything = [tuple(params.values()) for params in [*(trial.params for trial in trials), *pending]]
    assert len(set(everything)) == 10


def test_all_of_a_small_space_is_tried_before_anything_is_repeated() -> None:
    space = (Parameter("rank", "int", 1, 1, 3), Parameter("loss", "choice", "a", choices=("a", "b")))
    trials = [Trial({"rank": 1, "loss": "a"}, 0.0)]
    while len(trials) < 8:
        params = joint.suggest(space, "maximize", trials, 0)
        trials.append(Trial(params, float(params["rank"])))
    assert len({tuple(trial.params.values()) for trial in trials[:6]}) == 6
    assert {tuple(trial.params.values()) for trial in trials[6:]} <= {
        tuple(trial.params.values()) for trial in trials[:6]
    }


def test_whoever_rounds_what_is_suggested_is_not_told_the_same_for_ever() -> None:
    trials = [Trial(DEFAULT, quality(DEFAULT))]
    while len(trials) < 24:
        params = joint.suggest(SPACE, "maximize", trials, 0)
        rate = 10.0 ** round(math.log10(params["learning_rate"]))
        params |= {"learning_rate": max(rate, 2e-6), "warmup_ratio": round(params["warmup_ratio"] / 0.3) * 0.3}
        trials.append(Trial(params, quality(params)))
    assert len({tuple(trial.params.values()) for trial in trials}) > 16


def test_nothing_to_tune_is_an_error() -> None:
    fixed = Parameter("output", "choice", "out", choices=("out",), tunable=False)
    with pytest.raises(ValueError, match="no parameter is tunable"):
        joint.suggest([fixed], "maximize", [Trial({"output": "out"}, 1.0)], 0)


def test_what_the_first_trial_says_of_an_untunable_parameter_stays() -> None:
    trials = [Trial({**DEFAULT, "output": "other"}, 0.0)]
    assert joint.suggest(SPACE, "maximize", trials, 0)["output"] == "other"


def test_only_finished_trials_within_the_constraints_are_recommended() -> None:
    trials = search(quality, 6)
    best = {**DEFAULT, "learning_rate": 4e-4, "epochs": 3, "batch_size": 32, "loss": "cosent"}
    trials += [Trial(best, 5.0, violation=0.2), Trial({**best, "epochs": 4}, 6.0, stopped=True)]
    assert joint.recommend(SPACE, "maximize", trials) < 6
    assert joint.recommend(SPACE, "maximize", [replace(trials[0], violation=1.0), *trials[6:]]) == 0


def test_constraints_are_learnt() -> None:
    def suggested(violates: bool) -> float:
        trials = [
            Trial({**DEFAULT, "epochs": epochs, "learning_rate": rate}, float(epochs),
                  violation=0.5 if violates and epochs > 2 else 0.0)
            for epochs in (1, 2, 3, 4) for rate in (2e-5, 2e-4)
        ]  # fmt: skip
        found: list[int] = [joint.suggest(SPACE, "maximize", trials, seed)["epochs"] for seed in range(6)]
        return sum(found) / len(found)

    assert suggested(violates=True) < suggested(violates=False) - 0.5


def test_one_lucky_measurement_is_not_recommended() -> None:
    rng = random.Random(0)
    trials = [Trial(DEFAULT, -1.7)]
    for rate in (2e-6, 5e-6, 1e-5, 5e-5, 1e-4, 2e-4, 4e-4, 7e-4, 1e-3, 2e-3):
        for epochs in (1, 2, 3, 4):
            params = {**DEFAULT, "learning_rate": rate, "epochs": epochs}
            trials.append(Trial(params, -(math.log10(rate / 4e-4) ** 2) + rng.gauss(0, 0.1)))
    lucky = Trial({**DEFAULT, "learning_rate": 1.2e-4}, 0.25)
    trials.append(lucky)
    assert max(trial.value or 0.0 for trial in trials) == 0.25
    chosen = trials[joint.recommend(SPACE, "maximize", trials)]
    assert chosen is not lucky
    assert 1.5e-4 < chosen.params["learning_rate"] < 1.1e-3


@pytest.mark.parametrize("seed", range(4))
def test_usual_values_are_left_where_finer_ones_promise_more(seed: int) -> None:
    """Best between two half decades: what is clearly bad on the coarse grid is not tried before it."""
    space = (Parameter("rate", "float", 5e-4, 1e-6, 1e-3, log=True), Parameter("batch", "int", 4, 1, 8))

    def value(params: Mapping[str, Any]) -> float:
        return 0.9 - 0.2 * abs(math.log10(params["rate"]) + 5.5) - 0.01 * (params["batch"] - 6) ** 2

    trials = [Trial({"rate": 5e-4, "batch": 4}, value({"rate": 5e-4, "batch": 4}))]
    for _ in range(15):
        found = joint.suggest(space, "maximize", trials, seed)
        trials.append(Trial(found, value(found)))
    assert max(trial.value or 0.0 for trial in trials) > 0.88
