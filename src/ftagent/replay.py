"""Run a recorded run again with the replies of its models: `ftagent replay`. No key, no network."""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ftagent import parts, record
from ftagent.core import events
from ftagent.core.engine import Engine
from ftagent.core.errors import RequestError
from ftagent.core.journal import read_records
from ftagent.core.recorded import (
    Different,
    MeasuredAsRecorded,
    RecordedEnvironment,
    WithoutInspection,
    first_difference,
    without_scripts,
)
from ftagent.core.run_folder import RunFolder
from ftagent.core.session import Session
from ftagent.core.state import effective

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ftagent.core.observer import Observer
    from ftagent.core.protocols import Environment, Scenario
    from ftagent.parts import Parts
    from ftagent.settings import Settings


@dataclass(frozen=True)
class Replayed:
    """How a replay went."""

    run: Path
    executed: bool
    """Stages were really executed; otherwise they end as recorded and only their predictions are scored again."""
    loops: int
    calls: int
    """Of language models, answered from the record."""
    seconds: float
    difference: Different | None


def replay(run: Path, settings: Settings, observer: Observer, *, execute: bool, out: Path | None = None) -> Replayed:
    """Repeat `run` and tell the first difference. Raises RequestError, JournalDamaged.

    `out`: a folder for the replayed run, which must not exist; without it nothing is kept.
    """
    if out is not None and out.exists():
        raise RequestError(f"--out {out}: is there already; a replay needs a folder of its own")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ftagent-replay-") as folder:
        target = RunFolder(out or Path(folder) / "run")
        target.path.mkdir(parents=True)
        recorded = RunFolder(run)
        history = [r.event for r in effective(read_records(recorded.journal))]
        if not isinstance(next(iter(history), None), events.Created):
            raise RequestError(f"{run}: nothing is recorded yet, so there is nothing to replay")
        difference = _repeat(recorded, target, history, settings, observer, execute)
    calls = sum(isinstance(event, events.Called) for event in history)
    return Replayed(run, execute, _complete(history), calls, round(time.monotonic() - started, 3), difference)


def _repeat(
    recorded: RunFolder,
    target: RunFolder,
    history: Sequence[events.Event],
    settings: Settings,
    observer: Observer,
    execute: bool,
) -> Different | None:
    request = record.request_of(recorded)
    target.write_json(target.record, recorded.read_record())
    built = parts.rebuild(request, settings, observer.note, recorded)
    created = history[0]
    assert isinstance(created, events.Created)
    environment: Environment = built.environment
    scenario: Scenario = built.scenario
    if execute:
        environment = MeasuredAsRecorded(environment, target, history)
    else:
        environment = RecordedEnvironment(recorded, target, history, created.sealed, scenario.brief().model_folder)
        scenario = WithoutInspection(scenario)
    phases = _phases(history)
    with target.lock():
        session = Session(target, observer, [e.left for e in history if isinstance(e, events.LoopStarted)])
        try:
            session.record(replace(created, limits=events.Limits(_complete(history))))
            built.calls.open(session)
            observer.begin(session.state)
            try:
                asyncio.run(_run(session, phases, scenario, environment, built))
            except Different as difference:
                return difference
            again = [r.event for r in effective(session.journal.records)]
        finally:
            session.close()
    if not execute:
        history = without_scripts(history)
    compared = [_comparable(events_, _complete(history), phases[-1].step_n is None) for events_ in (history, again)]
    return first_difference(recorded, compared[0], target, compared[1])


async def _run(
    session: Session, phases: Sequence[events.Limits], scenario: Scenario, environment: Environment, built: Parts
) -> None:
    try:
        for limits in phases:
            session.change_limits(limits)
            await Engine(session, scenario, built.agent, environment, built.options).run()
    finally:
        await built.close()


def _complete(history: Sequence[events.Event]) -> int:
    return sum(isinstance(event, events.Reflected) for event in history)


def _comparable(history: Sequence[events.Event], loops: int, finished: bool) -> list[events.Event]:
    """The first `loops` loops; of the finish only if the recorded run has one that still counts."""
    whole = [event for event in history if (getattr(event, "loop", None) or 0) < loops]
    splits = (None, "validation") if not finished else (None, "validation", "confirm", "test")
    return [event for event in whole if getattr(event, "split", None) in splits]


def _phases(history: Sequence[events.Event]) -> list[events.Limits]:
    """Up to each finish and on; where the recorded run stopped short of one, the sealed test stays shut."""
    phases, loops = [], 0
    for event in history:
        loops += isinstance(event, events.Reflected)
        if isinstance(event, events.Finished):
            phases.append(events.Limits(loop_n=loops))
    if not phases or phases[-1].loop_n != loops:
        before = phases[-1].loop_n or 0 if phases else 0
        phases.append(events.Limits(loop_n=None, step_n=(not phases) + 4 * (loops - before)))
    return phases
