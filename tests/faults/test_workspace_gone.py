"""A workspace that vanished: one clear line that names the way back, and that way works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ftagent.agents.scripted import ScriptedAgent
from ftagent.core.errors import WorkspaceMissing
from ftagent.core.events import Limits, Place
from ftagent.core.run_folder import RunFolder
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


def test_a_workspace_that_was_cut_short_gets_its_files(tmp_path: Path) -> None:
    """As a full disk or a kill leaves it: the folder is there, the files are not."""
    path, scenario = tmp_path / "run", noop(tmp_path)
    drive(tmp_path / "whole", scenario)
    drive(path, scenario, limits=Limits(loop_n=3, step_n=3))
    (path / "workspaces/Loop_0/full").mkdir(parents=True)
    drive(path, scenario)
    assert story(path) == story(tmp_path / "whole")


def test_going_back_needs_no_weights_that_were_dropped_on_purpose(tmp_path: Path) -> None:
    path, scenario = tmp_path / "run", noop(tmp_path, stages=1, items=200)
    drive(path, scenario, environment=LocalEnvironment())
    assert not (path / "workspaces/Loop_0/full/model").exists()
    before = [event for event in story(path) if event[0] == "selected"]
    ended = drive(path, scenario, environment=LocalEnvironment(), place=Place(1, "run"))
    assert ended.status == "completed"
    assert [event for event in story(path) if event[0] == "selected"] == before * 2
