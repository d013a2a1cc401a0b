"""Why a container ended: what its process 1 told, and where that got to tell nothing, what the engine knows."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftagent.core.errors import EnvironmentUnavailable
from ftagent.core.types import Stage
from ftagent.environments.docker_engine import Engine, EngineGone, NoSuchContainer
from ftagent.environments.docker_stream import Report
from ftagent.environments.ending import Ending, classify
from ftagent.environments.stages import full_disk, without_outputs

KILLED = 137
NOTICE_SECONDS = 10.0
"""How long an engine may take to notice that a container is over whose streams are closed."""
NOT_FOUND = 127


@dataclass(frozen=True)
class Found:
    """What there is to judge by."""

    ended: bool
    """False when the container had not ended long after its time limit."""
    report: Report | None
    said: bytes
    """All that process 1 wrote."""
    tail: str
    """The end of the command's output."""

    @property
    def peak_bytes(self) -> int:
        return self.report.peak_bytes if self.report else 0


def conclude(engine: Engine, name: str, stage: Stage, workspace: Path, found: Found) -> Ending:
    """Blocks. Raises EnvironmentUnavailable and StorageFull for what was not the command's fault."""
    report = found.report
    if not found.ended:
        return classify(stage, "time", None, 0)
    if report is None:
        return _unreported(engine, name, stage, found)
    if report.error:
        raise EnvironmentUnavailable(f"stage {stage.name} cannot be started: {report.error}")
    oom_kills = report.oom_kills
    if oom_kills is None:
        with contextlib.suppress(EngineGone, NoSuchContainer):
            oom_kills = int(bool(_stopped(engine, name).get("OOMKilled")))
    ending = classify(stage, "time" if report.stopped == "time" else "", report.exit_code, oom_kills or 0)
    if ending.end == "ok":
        return without_outputs(stage, workspace) or ending
    if ending.end == "failed":
        if full := full_disk(workspace):
            raise full
        return replace(ending, detail=ending.detail + _reason(ending, report, found.tail))
    return ending


def _reason(ending: Ending, report: Report, tail: str) -> str:
    last = (tail.strip().splitlines() or [""])[-1]
    why = f": {last}" if ending.exit_code == NOT_FOUND else ""
    return why + (f" ({' and '.join(report.full)} had no room left)" if report.full else "")


def _unreported(engine: Engine, name: str, stage: Stage, found: Found) -> Ending:
    """The container ended before its process 1 could tell how, which nothing inside can bring about."""
    try:
        state = _stopped(engine, name)
    except EngineGone:
        return Ending("lost", detail="the Docker Engine stopped answering; the result is unknown")
    except NoSuchContainer:
        return Ending("lost", detail="somebody removed the container; the result is unknown")
    if state.get("OOMKilled"):
        return classify(stage, "", KILLED, 1)
    said = found.said.decode("utf-8", "replace").strip().splitlines() or [str(state.get("Error") or "")]
    if said[-1]:
        raise EnvironmentUnavailable(f"stage {stage.name} cannot be started: {said[-1][:300]}")
    code = int(state.get("ExitCode") or 0)
    return Ending("lost", detail=f"somebody ended the container (exit code {code}); the result is unknown")


def _stopped(engine: Engine, name: str) -> dict[str, Any]:
    """The state of a container whose streams are closed."""
    deadline = time.monotonic() + NOTICE_SECONDS
    while True:
        state = engine.state(name)
        if not state.get("Running") or time.monotonic() > deadline:
            return state
        time.sleep(0.02)
