"""Disk, time and memory are looked at before each full stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ftagent.core import events
from ftagent.core.engine import EngineOptions
from ftagent.core.errors import StorageFull
from ftagent.core.events import Limits
from ftagent.core.hardware import free_disk_mb
from ftagent.core.headroom import Headroom
from ftagent.core.observer import Silent
from ftagent.core.run_folder import RunFolder
from ftagent.core.session import LimitReached, Session
from ftagent.core.types import Estimate, Execution, Hypothesis, Resources, Stage
from ftagent.environments.local import LocalEnvironment
from ftagent_noop.scenario import NoopScenario
from support import drive, noop

STAGE = Stage("train", "full", ("python", "train.py"))
NOTHING = Estimate(disk_mb=0, memory_mb=0, seconds_per_loop=0)


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


class Expecting(NoopScenario):
    """The noop scenario with another opinion of what it needs."""

    expected = NOTHING

    def estimate(self) -> Estimate:
        return self.expected


def expecting(tmp_path: Path, stages: int = 1, **needs: float) -> Expecting:
    plain = noop(tmp_path, stages=stages)
    scenario = Expecting(plain.options, plain.context)
    scenario.expected = replace(NOTHING, **needs)
    return scenario


def session_of(path: Path, *happened: events.Event, timeout: float | None = None) -> tuple[Session, Notes]:
    path.mkdir()
    notes = Notes()
    session = Session(RunFolder(path), notes)
    limits = Limits(loop_n=9, timeout=timeout)
    session.record(events.Created("noop", "accuracy", "maximize", 0, limits, sealed=True))
    for event in happened:
        session.record(event)
    return session, notes


def a_loop(loop: int, seconds: float, failure: str = "") -> list[events.Event]:
    return [events.Proposed(loop, Hypothesis("t", "r")), events.Built(loop), events.Ran(loop, failure, seconds)]


def test_a_stage_for_which_there_is_no_disk_is_not_started(tmp_path: Path) -> None:
    session, _ = session_of(tmp_path / "run", *a_loop(0, 0.0))
    free = free_disk_mb(tmp_path)
    assert free is not None
    with pytest.raises(
        StorageFull, match=r"MiB free, train of loop 0 needs about \d+\.\d MiB; free some space, .* then resume"
    ):
        Headroom(session, expecting(tmp_path, disk_mb=2 * free)).check(0, STAGE)
    Headroom(session, expecting(tmp_path, disk_mb=free / 2)).check(0, STAGE)


def test_the_first_loop_is_measured_by_the_estimate(tmp_path: Path) -> None:
    """`Nowhere`, the environment of `drive`, fails the test if it executes anything."""
    scenario, notes = expecting(tmp_path, seconds_per_loop=1000.0), Notes()
    ended = drive(tmp_path / "run", scenario, limits=Limits(loop_n=3, timeout=30.0), observer=notes)
    assert (ended.status, ended.limit) == ("budget", "--timeout")
    assert [note for note in notes.said if "loop 0: work is not started: about 1000 s to go" in note]
    assert [e.last_step for e in RunFolder(tmp_path / "run").state().experiments] == ["code"]


def test_later_loops_are_measured_by_those_before(tmp_path: Path) -> None:
    scenario, path = expecting(tmp_path, seconds_per_loop=1000.0), tmp_path / "run"
    drive(path, scenario, environment=LocalEnvironment(), limits=Limits(loop_n=1))
    ended = drive(path, scenario, environment=LocalEnvironment(), limits=Limits(loop_n=2, timeout=100.0))
    assert ended.status == "completed"


@pytest.mark.parametrize(("timeout", "enough"), [(90.0, False), (110.0, True), (None, True)])
def test_the_median_of_loops_that_were_scored_counts(tmp_path: Path, timeout: float | None, enough: bool) -> None:
    past = [*a_loop(0, 50.0), *a_loop(1, 100.0), *a_loop(2, 5.0, failure="crashed"), *a_loop(3, 900.0)]
    session, notes = session_of(tmp_path / "run", *past, *a_loop(4, 0.0), timeout=timeout)
    headroom = Headroom(session, expecting(tmp_path, seconds_per_loop=1.0))
    if enough:
        headroom.check(4, STAGE)
        assert notes.said == []
    else:
        with pytest.raises(LimitReached, match="--timeout"):
            headroom.check(4, STAGE)


def test_what_the_loop_has_done_already_is_not_to_come(tmp_path: Path) -> None:
    data = events.StageFinished(1, 0, "full", None, Execution("data", "ok", 60.0))
    session, _ = session_of(tmp_path / "run", *a_loop(0, 100.0), *a_loop(1, 0.0), data, timeout=50.0)
    Headroom(session, expecting(tmp_path)).check(1, STAGE)


def test_too_little_memory_is_told_once_and_not_of_a_gpu(tmp_path: Path) -> None:
    session, notes = session_of(tmp_path / "run", *a_loop(0, 0.0))
    headroom = Headroom(session, expecting(tmp_path, memory_mb=2**30))
    headroom.check(0, replace(STAGE, resources=Resources(gpus=("0",))))
    assert notes.said == []
    headroom.check(0, STAGE)
    headroom.check(0, STAGE)
    assert len(notes.said) == 1
    assert "train needs about 1073741824 MiB of memory" in notes.said[0]


def test_nothing_is_proposed_after_a_loop_that_had_no_time_left(tmp_path: Path) -> None:
    scenario, options = expecting(tmp_path, seconds_per_loop=1000.0), EngineOptions(parallel=2)
    ended = drive(tmp_path / "run", scenario, limits=Limits(loop_n=6, timeout=30.0), options=options)
    assert ended.limit == "--timeout"
    assert len(RunFolder(tmp_path / "run").state().experiments) <= 2
