"""What several tests need to drive the loop without a command line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ftagent.agents.scripted import Act, ScriptedAgent
from ftagent.core import events
from ftagent.core.calls import Calls
from ftagent.core.context import Hardware, ScenarioContext
from ftagent.core.engine import Ended, Engine, EngineOptions
from ftagent.core.events import Limits, Place
from ftagent.core.journal import read_records
from ftagent.core.observer import Observer, Silent
from ftagent.core.protocols import Agent, OnLine, Scenario
from ftagent.core.run_folder import RunFolder
from ftagent.core.session import Session
from ftagent.core.types import Execution, Purpose, Stage
from ftagent_noop.options import NoopOptions
from ftagent_noop.scenario import NoopScenario


class Nowhere:
    """An environment for scenarios without stages: executing anything is an error of the test."""

    name = "nowhere"
    sealed = True

    async def prepare(self, purpose: Purpose) -> None: ...

    async def modules(self) -> frozenset[str]:
        return frozenset()

    async def execute(self, stage: Stage, workspace: Path, on_line: OnLine, log: Path) -> Execution:
        raise AssertionError(f"{stage.name} was executed")

    async def close(self) -> None: ...


def noop(tmp_path: Path, seed: int = 0, **options: Any) -> NoopScenario:
    context = ScenarioContext(files_path=tmp_path, seed=seed, hardware=Hardware(cpus=2, memory_mb=1024))
    return NoopScenario(NoopOptions(**options), context)


ACTS = tuple(Act({"x": x, "mode": mode}) for x, mode in ((0.1, "plain"), (0.5, "better"), (0.7, "better")))


def drive(
    path: Path,
    scenario: Scenario,
    agent: Agent | None = None,
    environment: Any = None,
    *,
    limits: Limits | None = None,
    place: Place | None = None,
    observer: Observer | None = None,
    options: EngineOptions | None = None,
    calls: Calls | None = None,
) -> Ended:
    """One session of the run at `path`, made if it is not there: what `run` and `resume` do, without their words."""
    path.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(path)
    limits = limits or Limits(loop_n=3)
    with folder.lock():
        session = Session(folder, observer or Silent())
        try:
            if session.state.created is None:
                brief = scenario.brief()
                session.record(
                    events.Created(scenario.name, brief.metric, brief.direction, 0, Limits(limits.loop_n), sealed=True)
                )
            if place is not None:
                session.rewind(place)
            session.change_limits(limits)
            if calls is not None:
                calls.open(session)
            engine = Engine(
                session, scenario, agent or ScriptedAgent(ACTS), environment or Nowhere(), options or EngineOptions()
            )
            return asyncio.run(engine.run())
        finally:
            session.close()


_TIMES = ("seconds", "peak_mb")


def story(path: Path) -> list[tuple[str, Any]]:
    """A run's journal but for times: what must be equal however often the run was interrupted."""
    return [(record.kind, _timeless(record.event)) for record in read_records(path / "journal.jsonl")]


def _timeless(value: Any) -> Any:
    import msgspec

    def strip(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: strip(entry) for key, entry in item.items() if key not in _TIMES}
        return [strip(entry) for entry in item] if isinstance(item, list) else item

    return strip(msgspec.to_builtins(value))
