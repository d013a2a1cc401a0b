"""The replay reproduces what was worked out by hand on a table of six cells."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tables
from arms import arms, best_seen, golden_section
from replay import Curve, Replayed, replay, summary
from test_search_tables import SMALL, rows

from ftagent.search import Trial

ROOT = Path(__file__).parents[3]


class Script:
    """Proposes what it was given, in that order, and stops trials at the second point where asked."""

    name = "script"

    def __init__(self, proposals: Sequence[Mapping[str, Any]], stop: int | None = None) -> None:
        self._proposals, self._stop = proposals, stop
        self.told: list[Sequence[Trial]] = []

    def start(self, table: tables.Table, seed: int) -> Script:
        return self

    def suggest(self, trials: Sequence[Trial]) -> Mapping[str, Any]:
        self.told.append(tuple(trials))
        return self._proposals[len(trials) - 1]

    def stops(self, trials: Sequence[Trial], curve: Curve) -> bool:
        return len(trials) == self._stop and len(curve) == 2

    def recommend(self, trials: Sequence[Trial]) -> int:
        return best_seen(trials, "maximize")


@pytest.fixture
def table() -> tables.Table:
    return tables.from_rows(SMALL, rows())


def test_regret_and_cost_of_a_known_walk(table: tables.Table) -> None:
    walk = Script([{"learning_rate": 2e-2, "loss": "a"}, {"learning_rate": 1e-4, "loss": "b"},
                   {"learning_rate": 1e-2, "loss": "b"}])  # fmt: skip
    replayed = replay(table, walk, "exact", 0, 4)
    # The default is at -3, the best at -1.5: a rate of 1e-2 alone wins two thirds. The third trial fails in one seed.
    assert replayed.regret == pytest.approx([1, 1 / 3, 1 / 3, 0])
    assert replayed.reached() == 3
    assert replayed.training == pytest.approx([0.5, 1.0, 1.1, 1.6])
    assert replayed.seconds == pytest.approx([0.55, 1.1, 1.21, 1.76])
    last = walk.told[-1]
    assert [trial.params["learning_rate"] for trial in last] == [1e-3, 1e-2, 1e-4]
    assert [trial.value is None for trial in last] == [False, False, True]
    assert last[0].curve[-1] == (100, pytest.approx(-3 + 0.01 - 1))


def test_a_stopped_trial_costs_its_prefix_and_has_no_value(table: tables.Table) -> None:
    best = {"learning_rate": 1e-2, "loss": "b"}
    walk = Script([best, best], stop=1)
    replayed = replay(table, walk, "exact", 0, 3)
    assert replayed.regret == pytest.approx([1, 1, 0])
    assert replayed.training == pytest.approx([0.5, 0.7, 1.2])
    assert replayed.stopped == 1
    stopped = walk.told[-1][-1]
    assert stopped.stopped
    assert stopped.value is None
    assert [step for step, _ in stopped.curve] == [20, 40]


def test_noise_takes_another_seed_at_each_visit(table: tables.Table) -> None:
    walk = Script([SMALL.default] * 6)
    replay(table, walk, "noisy", 3, 6)
    values = [trial.value for trial in walk.told[-1]]
    assert sorted(values[:3]) == pytest.approx([-4, -3.99, -3.98])
    assert values[3:] == values[: len(values) - 3]
    again = Script([SMALL.default] * 6)
    replay(table, again, "noisy", 3, 6)
    assert again.told == walk.told


def test_summary_counts_what_was_not_reached() -> None:
    reached, missed = Replayed([1, 0.5, 0.0], [1, 2, 4], [1, 2, 3]), Replayed([1, 0.5, 0.5], [1, 2, 4], [1, 2, 3])
    found = summary([reached, reached, reached, missed, missed])
    assert (found.missed, found.trials, found.seconds) == (2, (3, 3, math.inf), (4, 4, math.inf))
    assert found.regret[5] == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["random", "optuna-tpe", "optuna-tpe-halving", "univariate-grid"])
def test_peers_start_from_the_default_and_find_the_best(name: str, table: tables.Table) -> None:
    replayed = replay(table, arms()[name], "exact", 1, 60)
    assert replayed.regret[0] == 1.0
    assert replayed.regret[-1] == 0.0
    assert replay(table, arms()[name], "exact", 1, 60) == replayed


@pytest.mark.parametrize("name", ["optuna-gp", "optuna-cmaes", "optuna-tpe-median"])
def test_slower_peers_gain_on_the_default(name: str, table: tables.Table) -> None:
    replayed = replay(table, arms()[name], "noisy", 1, 12)
    assert replayed.regret[0] == 1.0
    assert replayed.regret[-1] < 0.7


def test_distinct_proposals_are_distinct(table: tables.Table) -> None:
    search = arms()["optuna-tpe-distinct"].start(table, 0)
    seen = [Trial(table.spec.default, -3.0)]
    for number in range(5):
        seen.append(Trial(table.params(table.snap(search.suggest(seen))), -1.0 * number))
    assert len({table.snap(trial.params) for trial in seen}) == 6


def test_golden_section_closes_in_on_the_learning_rate_alone(table: tables.Table) -> None:
    walk = golden_section(table)
    proposal = next(walk)
    for _ in range(15):
        assert proposal.keys() == {"learning_rate", "loss"}
        assert proposal["loss"] == "a"
        proposal = walk.send(abs(math.log(proposal["learning_rate"] / 4e-3)))
    assert proposal["learning_rate"] == pytest.approx(4e-3, rel=0.01)


def test_the_univariate_grid_takes_one_parameter_after_the_other(table: tables.Table) -> None:
    replayed = replay(table, arms()["univariate-grid"], "exact", 0, 10)
    assert replayed.regret[:4] == pytest.approx([1, 1, 1 / 3, 0])


def test_command_line_keeps_replays(tmp_path: Path) -> None:
    command = [
        sys.executable, str(ROOT / "tests/bench/search/bench_search.py"), "--tables", "lightgbm", "--arms", "random",
        "univariate-grid", "--seeds", "2", "--trials", "5", "--results", "kept.jsonl", "--json", "out.json",
    ]  # fmt: skip
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    kept = (tmp_path / "kept.jsonl").read_text()
    assert len(kept.splitlines()) == 2 * 2 * 2
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert again.stdout == first.stdout
    assert (tmp_path / "kept.jsonl").read_text() == kept
    found = json.loads((tmp_path / "out.json").read_text())
    assert {one["arm"] for one in found} == {"random", "univariate-grid"}
