"""What a run with a plan lays out: `best_overall_model/`, `best` that points to it, `models/` by time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ftagent import record
from ftagent.agents.scripted import Act, ScriptedAgent
from ftagent.cli import run as command_line
from ftagent.core.engine import EngineOptions
from ftagent.core.events import Limits, Place
from ftagent.core.outputs import replace_folder
from ftagent.core.run_folder import RunFolder
from ftagent.core.state import State
from ftagent.environments.local import LocalEnvironment
from support import drive, noop

RISING = [Act({"x": x, "mode": "better"}) for x in (0.3, 0.5, 0.7)]


def tune(path: Path, loops: int = 3, keep: str = "best", place: Place | None = None, plan: str = "joint") -> None:
    """Loops that get better and better, each with a real command that leaves a model."""
    scenario = noop(path.parent, stages=1, items=400, plan=plan)
    options = EngineOptions(keep=keep)
    drive(path, scenario, ScriptedAgent(RISING), LocalEnvironment(), limits=Limits(loops), options=options, place=place)


def x_of(folder: Path) -> float:
    return float(json.loads((folder / "params.json").read_text())["x"])


def names(path: Path) -> list[str]:
    return sorted(re.sub(r"^\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_", "", link.name) for link in (path / "models").iterdir())


def test_best_points_to_the_best_overall_model(tmp_path: Path) -> None:
    tune(tmp_path / "run")
    best = RunFolder(tmp_path / "run").best
    assert best.is_symlink()
    assert str(best.readlink()) == "best_overall_model"
    assert x_of(best) == x_of(tmp_path / "run/best_overall_model") == 0.7
    assert (best / "files/params.json").is_file()


def test_a_resumed_run_that_improves_replaces_it_and_leaves_nothing_else(tmp_path: Path) -> None:
    tune(tmp_path / "run", loops=2)
    assert x_of(tmp_path / "run/best") == 0.5
    tune(tmp_path / "run", loops=3)
    assert x_of(tmp_path / "run/best") == 0.7
    assert not [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith((".tmp", ".best"))]


def test_a_run_without_a_plan_has_a_folder_and_no_list(tmp_path: Path) -> None:
    tune(tmp_path / "run", plan="")
    assert not (tmp_path / "run/best").is_symlink()
    assert x_of(tmp_path / "run/best") == 0.7
    assert not (tmp_path / "run/best_overall_model").exists()
    assert not (tmp_path / "run/models").exists()


@pytest.mark.parametrize(("keep", "left"), [("all", ["default", "loop_0", "loop_1", "loop_2"]), ("none", ["default"])])
def test_models_lists_what_is_there(tmp_path: Path, keep: str, left: list[str]) -> None:
    tune(tmp_path / "run", keep=keep)
    assert names(tmp_path / "run") == left
    for link in (tmp_path / "run/models").iterdir():
        assert not link.readlink().is_absolute()
        assert (link / "params.json").is_file()


def test_the_default_is_kept_where_nothing_beats_it(tmp_path: Path) -> None:
    scenario = noop(tmp_path, stages=1, items=400, plan="joint", floor=0.9, ceiling=0.1)
    path = tmp_path / "run"
    drive(path, scenario, ScriptedAgent(RISING), LocalEnvironment(), limits=Limits(1))
    selected = RunFolder(path).state().selected
    assert selected is not None
    assert selected.loop is None
    assert x_of(path / "best") == 0.1
    assert x_of(path / "best/files") == 0.1


def test_dropped_weights_are_not_listed(tmp_path: Path) -> None:
    tune(tmp_path / "run")
    assert "loop_2" in names(tmp_path / "run")
    assert "loop_0" not in names(tmp_path / "run")
    assert all(link.exists() for link in (tmp_path / "run/models").iterdir())


def test_going_back_lists_the_model_that_was_trained_again(tmp_path: Path) -> None:
    tune(tmp_path / "run", keep="all")
    state: State = RunFolder(tmp_path / "run").state()
    old = next(link.name for link in (tmp_path / "run/models").iterdir() if link.name.endswith("loop_1"))
    (tmp_path / "run/models" / old).rename(tmp_path / "run/models/2001-01-01_00-00-00_loop_1")
    tune(tmp_path / "run", keep="all", place=Place(1))
    assert len(state.experiments) == 3
    assert names(tmp_path / "run") == ["default", "loop_0", "loop_1", "loop_2"]
    assert not (tmp_path / "run/models/2001-01-01_00-00-00_loop_1").is_symlink()


def test_prune_and_fork_leave_no_link_that_leads_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "log/run"
    tune(path, keep="all")
    RunFolder(path).write_json(path / "run.json", {"request": {"scenario": "noop"}})
    fork = record.fork(RunFolder(path), None).path
    assert not (fork / "best").is_symlink()
    assert not (fork / "best_overall_model").exists()
    assert all((fork / "models" / link.name).resolve().is_relative_to(fork) for link in (fork / "models").iterdir())
    assert command_line(["prune", str(path), "--yes"]) == 0
    assert names(path) == []
    assert x_of(path / "best") == 0.7


def test_a_folder_is_replaced_where_names_cannot_be_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    monkeypatch.setattr("ftagent.core.outputs._swap", lambda one, other: False)
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert [(path.name, (path / "file").read_text()) for path in tmp_path.iterdir()] == [("old", "new")]
