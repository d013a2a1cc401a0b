"""A workspace that vanished: one clear line that names the way back, and that way works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ftagent.agents.scripted import ScriptedAgent
from ftagent.core.errors import WorkspaceMissing
from ftagent.core.events import Limits, Place
from ftagent.core.run_folder import RunFolder
from ftagent.core.workspace import UnsafePath, Workspace
from ftagent.environments.local import LocalEnvironment
from support import ACTS, drive, noop, story


def test_a_vanished_workspace_is_named_with_the_way_back(tmp_path: Path) -> None:
    path, scenario = tmp_path / "run", noop(tmp_path, stages=1, items=200)
    agent = ScriptedAgent([ACTS[2], ACTS[0]])
    drive(path, scenario, agent, LocalEnvironment(), limits=Limits(loop_n=2))
    shutil.rmtree(path / "workspaces")
    with pytest.raises(WorkspaceMissing, match="--from 0:run"):
        drive(path, scenario, agent, LocalEnvironment(), limits=Limits(loop_n=3))
    state = RunFolder(path).state()
    assert [e.last_step for e in state.experiments] == ["feedback"] * 3
    ended = drive(path, scenario, agent, LocalEnvironment(), limits=Limits(loop_n=3), place=Place(0, "run"))
    assert ended.status == "completed"
    assert (path / "best/params.json").is_file()


def test_a_workspace_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "Loop_0/full")
    with pytest.raises(UnsafePath):
        workspace.create({"a": "1", "a/b": "the first is written when this one fails"})
    assert not workspace.path.exists()
    workspace.create({"a": "1", "c/b": "2"})
    assert [workspace.read(name) for name in ("a", "c/b")] == [b"1", b"2"]
    assert [path.name for path in (tmp_path / "Loop_0").iterdir()] == ["full"]


def test_going_back_needs_no_weights_that_were_dropped_on_purpose(tmp_path: Path) -> None:
    path, scenario = tmp_path / "run", noop(tmp_path, stages=1, items=200)
    drive(path, scenario, environment=LocalEnvironment())
    assert not (path / "workspaces/Loop_0/full/model").exists()
    before = [event for event in story(path) if event[0] == "selected"]
    ended = drive(path, scenario, environment=LocalEnvironment(), place=Place(1, "run"))
    assert ended.status == "completed"
    assert [event for event in story(path) if event[0] == "selected"] == before * 2
