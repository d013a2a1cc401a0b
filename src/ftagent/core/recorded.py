"""What a replay executes and scores with instead of the real things, and how it is compared with what it repeats."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from ftagent.core import events
from ftagent.core.calls import transcript_path
from ftagent.core.check import NO_MODULE, STATIC_CHECK
from ftagent.core.errors import FtagentError
from ftagent.core.executor import METRICS, PREDICTIONS
from ftagent.core.protocols import Environment, OnLine, Scenario
from ftagent.core.run_folder import RunFolder
from ftagent.core.types import Brief, Candidate, Estimate, Execution, Purpose, Score, Split, Stage

SCRIPT = "script"
_MISSING = re.compile(NO_MODULE.replace("{!r}", "'([^']+)'"))
_Key = tuple[int | None, int | None, str, str]


class _AllBut(frozenset[str]):
    """Of all names there can be, those that are not listed. Empty, which is unknown, where none is listed."""

    def __contains__(self, name: object) -> bool:
        return not super().__contains__(name)


class Different(FtagentError):
    """A replayed run departs from the recorded one. `where` is a place in the run, the rest one line each."""

    def __init__(self, where: str, what: str, recorded: str, replayed: str) -> None:
        super().__init__(f"{where}: {what}: recorded {recorded or 'nothing'}; replayed {replayed or 'nothing'}")
        self.where, self.what, self.recorded, self.replayed = where, what, recorded, replayed


class _Ends:
    """How each stage of the recorded run ended, found by where the replayed run executes it."""

    def __init__(self, replayed: RunFolder, history: Sequence[events.Event]) -> None:
        self._ends: dict[_Key, deque[events.StageFinished]] = defaultdict(deque)
        self._places: dict[Path, tuple[int | None, int | None]] = {}
        for event in history:
            if isinstance(event, events.StageFinished):
                attempt = event.attempt if event.purpose == "debug" else None
                self._ends[event.loop, attempt, event.purpose, event.execution.stage].append(event)
                self._places[replayed.workspace(event.loop, attempt).absolute()] = (event.loop, attempt)

    def take(self, stage: Stage, workspace: Path) -> events.StageFinished | None:
        """The next end of `stage` there; None where the recorded run did not execute it (as often)."""
        loop, attempt = self._places.get(workspace, (None, None))
        ends = self._ends[loop, attempt, stage.purpose, stage.name]
        return ends.popleft() if workspace in self._places and ends else None


class RecordedEnvironment:
    """Ends every stage as it ended in the recorded run and lays out what it left: predictions and losses."""

    name = "recorded"

    def __init__(
        self,
        recorded: RunFolder,
        replayed: RunFolder,
        history: Sequence[events.Event],
        sealed: bool,
        model_folder: str = "",
    ) -> None:
        """`model_folder`: what a training leaves that ended well, whether its stage declares so or not."""
        self.sealed = sealed
        self._recorded = recorded
        self._model_folder = model_folder
        self._ends = _Ends(replayed, history)
        self._missing = {
            name
            for event in history
            if isinstance(event, events.StageFinished) and event.execution.stage == STATIC_CHECK
            for name in _MISSING.findall(event.execution.tail)
        }

    async def prepare(self, purpose: Purpose) -> None: ...

    async def modules(self) -> frozenset[str]:
        """Everything but what the recorded run missed."""
        return _AllBut(self._missing)

    async def execute(self, stage: Stage, workspace: Path, on_line: OnLine, log: Path) -> Execution:
        """Raises Different for a stage that the recorded run did not execute."""
        event = self._ends.take(stage, workspace)
        if event is None:
            raise Different(str(workspace), f"stage {stage.name} ({stage.purpose})", "", "executed")
        if event.execution.ok:
            self._lay_out(stage, workspace, self._recorded.running(event.loop), event.split)
        return event.execution

    async def close(self) -> None: ...

    def _lay_out(self, stage: Stage, workspace: Path, record: Path, split: Split | None) -> None:
        model = (self._model_folder,) if stage.purpose == "full" and self._model_folder else ()
        for output in (*stage.outputs, *model):
            if output not in (PREDICTIONS, METRICS):
                (workspace / output).parent.mkdir(parents=True, exist_ok=True)
                (workspace / output).mkdir(exist_ok=True)
        kept = record / f"predictions_{split}.jsonl"
        if stage.purpose == "predict" and kept.is_file():
            shutil.copyfile(kept, workspace / PREDICTIONS)
        if stage.purpose == "full" and (record / METRICS).is_file():
            shutil.copyfile(record / METRICS, workspace / METRICS)


class MeasuredAsRecorded:
    """Executes every stage; one that ends as it did is told with the recorded times, memory and last words.

    Those differ from one execution to the next, and prompts quote them. What a stage left is its own.
    """

    def __init__(self, inner: Environment, replayed: RunFolder, history: Sequence[events.Event]) -> None:
        self.name, self.sealed = inner.name, inner.sealed
        self._inner = inner
        self._ends = _Ends(replayed, history)

    async def prepare(self, purpose: Purpose) -> None:
        await self._inner.prepare(purpose)

    async def modules(self) -> frozenset[str]:
        return await self._inner.modules()

    async def execute(self, stage: Stage, workspace: Path, on_line: OnLine, log: Path) -> Execution:
        execution = await self._inner.execute(stage, workspace, on_line, log)
        event = self._ends.take(stage, workspace)
        if event and (event.execution.end, event.execution.exit_code) == (execution.end, execution.exit_code):
            return event.execution
        return execution

    async def close(self) -> None:
        await self._inner.close()


class WithoutInspection:
    """A scenario whose stages need nothing and left nothing to look at; the rest, scoring too, is the real thing."""

    def __init__(self, inner: Scenario) -> None:
        self.name = inner.name
        self._inner = inner

    def brief(self) -> Brief:
        return self._inner.brief()

    def estimate(self) -> Estimate:
        return Estimate(disk_mb=0.0, memory_mb=0.0, seconds_per_loop=0.0)

    def baseline(self) -> Candidate:
        return self._inner.baseline()

    def stages(self, candidate: Candidate, purpose: Purpose, split: Split | None = None) -> list[Stage]:
        return self._inner.stages(candidate, purpose, split)

    def inspect(self, stage: Stage, workspace: Path) -> None: ...

    async def score(self, predictions: Path, split: Split) -> Score:
        return await self._inner.score(predictions, split)


def first_difference(
    recorded: RunFolder, old: Sequence[events.Event], replayed: RunFolder, new: Sequence[events.Event]
) -> Different | None:
    """Of two histories, loop by loop: what was proposed, coded, executed, scored, said and claimed; times left out."""
    before, after = _by_loop(old), _by_loop(new)
    for loop in sorted(before.keys() | after.keys(), key=lambda number: (number is None, number)):
        for number in range(max(len(before[loop]), len(after[loop]))):
            was = before[loop][number] if number < len(before[loop]) else None
            now = after[loop][number] if number < len(after[loop]) else None
            what = events.EVENT_NAMES[type(was or now)].replace("_", " ")
            where = "baseline and finish" if loop is None else f"loop {loop}"
            if _essence(was) != _essence(now):
                return Different(where, *_explain(what, _essence(was), _essence(now)))
            if isinstance(was, events.Called) and isinstance(now, events.Called):
                paths = transcript_path(recorded, was), transcript_path(replayed, now)
                if _said(was, paths[0]) != _said(now, paths[1]):
                    return Different(where, paths[0].name, "other bytes", "other bytes")
    return None


def _said(called: events.Called, path: Path) -> Any:
    """A transcript: its bytes. Whether a script's call was paid for may depend on which loop asked first."""
    if called.role != SCRIPT:
        return path.read_bytes()
    document = msgspec.json.decode(path.read_bytes())
    del document["cost_usd"]
    return document


def _by_loop(history: Sequence[events.Event]) -> dict[int | None, list[events.Event]]:
    found: dict[int | None, list[events.Event]] = defaultdict(list)
    for event in history:
        # How often the test was opened and when limits changed is this recording's own history.
        if not isinstance(event, events.Created | events.LimitsChanged | events.TestOpened | events.Finished):
            found[getattr(event, "loop", None) if not isinstance(event, events.Selected) else None].append(event)
    return defaultdict(list, {loop: _in_order(story) for loop, story in found.items()})


def _in_order(story: Sequence[events.Event]) -> list[events.Event]:
    """Calls of one script by what they asked: it may ask many things at once, and replies come as they like."""
    ordered: list[events.Event] = []
    for asked, group in groupby(story, lambda event: isinstance(event, events.Called) and event.role == SCRIPT):
        events_ = list(group)
        ordered += sorted(events_, key=lambda event: getattr(event, "request", "")) if asked else events_
    return ordered


def without_scripts(history: Sequence[events.Event]) -> list[events.Event]:
    """`history` without what scripts asked: scripts that are not executed ask nothing."""
    return [event for event in history if not (isinstance(event, events.Called) and event.role == SCRIPT)]


def _essence(event: events.Event | None) -> Any:
    """What must be equal: no times, no measurements of the machine, no prices."""
    if event is None:
        return None
    document = msgspec.to_builtins(event)
    match event:
        case events.StageFinished():
            return document | {
                "execution": {name: document["execution"][name] for name in ("stage", "end", "exit_code")}
            }
        case events.Ran():
            return {name: document[name] for name in ("loop", "failure")}
        case events.Called():
            names = ("step", "attempt", "role", "model", "request", "transcript")
            return {name: document[name] for name in names if event.role != SCRIPT or name != "transcript"}
        case _:
            return document


def _explain(what: str, was: Any, now: Any, path: str = "") -> tuple[str, str, str]:
    """The deepest single field in which two documents differ."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in {**was, **now}:
            if was.get(name) != now.get(name):
                return _explain(what, was.get(name), now.get(name), f"{path}.{name}" if path else name)
    shown = [repr(value) if len(repr(value)) <= 160 else repr(value)[:159] + "…" for value in (was, now)]
    return f"{what} {path}".strip(), *(shown[0], shown[1])
