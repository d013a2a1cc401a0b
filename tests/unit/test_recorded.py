"""What a replay that executes tells of a stage: what is measured anew is not what prompts once quoted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ftagent.core import events
from ftagent.core.protocols import OnLine
from ftagent.core.recorded import MeasuredAsRecorded
from ftagent.core.run_folder import RunFolder
from ftagent.core.types import Execution, Purpose, Stage

RECORDED = Execution("work", "failed", 0.2, exit_code=1, peak_mb=19.0, tail="KeyError: at 12:01")


class Executing:
    """Ends every stage in the same way."""

    name, sealed = "fixed", True

    def __init__(self, execution: Execution) -> None:
        self.execution = execution

    async def prepare(self, purpose: Purpose) -> None: ...

    async def modules(self) -> frozenset[str]:
        return frozenset()

    async def execute(self, stage: Stage, workspace: Path, on_line: OnLine, log: Path) -> Execution:
        return self.execution

    async def close(self) -> None: ...


def told(now: Execution, folder: Path, stage: str = "work") -> Execution:
    """What is told of a stage of loop 1 that ended as `now`."""
    replayed = RunFolder(folder)
    history = [events.StageFinished(1, 0, "full", None, RECORDED)]
    environment = MeasuredAsRecorded(Executing(now), replayed, history)
    workspace = replayed.workspace(1, None).absolute()
    executed = Stage(stage, "full", ("true",))
    return asyncio.run(environment.execute(executed, workspace, lambda line: None, folder / "log"))


def test_a_stage_that_ends_as_it_did_is_told_as_it_was(tmp_path: Path) -> None:
    slower = Execution("work", "failed", 0.3, exit_code=1, peak_mb=21.0, tail="KeyError: at 12:45")
    assert told(slower, tmp_path) == RECORDED


@pytest.mark.parametrize(
    ("stage", "now"),
    [
        ("work", Execution("work", "ok", 0.3, exit_code=0)),
        ("work", Execution("work", "failed", 0.3, exit_code=2)),
        ("work", Execution("work", "timed_out", 0.3)),
        ("other", Execution("other", "failed", 0.3, exit_code=1)),
    ],
    ids=["mended", "another exit code", "timed out", "not on record"],
)
def test_a_stage_that_ends_otherwise_is_told_as_it_is(stage: str, now: Execution, tmp_path: Path) -> None:
    assert told(now, tmp_path, stage) == now
