"""Control runs: the same default and as many loops, searched by strategies that everybody knows.

They lie under RUN/controls as runs of their own, so they are resumed, shown and watched like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ftagent import language, parts, record
from ftagent.core import events
from ftagent.core.errors import RequestError
from ftagent.core.events import Limits
from ftagent.core.run_folder import RunFolder
from ftagent.core.session import Session
from ftagent.core.types import Brief

if TYPE_CHECKING:
    from ftagent.core.observer import Observer
    from ftagent.core.protocols import Scenario
    from ftagent.core.state import State
    from ftagent.parts import Parts
    from ftagent.request import RunRequest
    from ftagent.settings import Settings

SAMPLERS = ("random", "tpe")


@dataclass(frozen=True)
class Replanned:
    """A scenario whose configuration is searched by `sampler`, all parameters at once, no trial stopped early."""

    inner: Scenario
    sampler: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def brief(self) -> Brief:
        brief = self.inner.brief()
        if brief.plan is None:
            raise RequestError("--controls: this scenario tunes no configuration")
        return replace(brief, plan=replace(brief.plan, mode="joint", sampler=self.sampler, halving=None))


def check(request: RunRequest, built: Parts) -> None:
    """Raises RequestError where a run that asks for controls can have none."""
    if request.controls and built.scenario.brief().plan is None:
        raise RequestError(f"--controls: scenario {request.scenario} tunes no configuration; hpo does")


def run_controls(
    folder: RunFolder,
    state: State,
    request: RunRequest,
    settings: Settings,
    observer: Observer,
    drive: Callable[[Session, Parts], bool],
) -> bool:
    """Run or go on with each control, to as many loops as the run at `folder` has; False where one was not finished.

    `drive` runs a session until it ends and tells whether it came to its end.
    """
    for sampler in SAMPLERS:
        target = RunFolder(folder.controls / sampler)
        if not _is_done(target, len(state.experiments)) and not _run(target, state, request, settings, observer, drive):
            return False
    return True


def _is_done(target: RunFolder, loops: int) -> bool:
    if not target.journal.is_file():
        return False
    state = target.state()
    return state.status is not None and len(state.experiments) >= loops


def _run(
    target: RunFolder,
    main: State,
    request: RunRequest,
    settings: Settings,
    observer: Observer,
    drive: Callable[[Session, Parts], bool],
) -> bool:
    sampler = target.name
    # From the cache a trial would cost nothing, and the comparison would be one of caches.
    asked = replace(
        request, agent="search", no_cache=True, controls=False, log_dir=str(target.path.parent), name=sampler
    )
    built = parts.build(asked, settings, observer.note)
    scenario: Any = Replanned(built.scenario, sampler)
    options = replace(built.options, keep="none", control=True)
    agent = language.silent_agent(scenario.brief())
    built = replace(built, scenario=scenario, agent=agent, options=options, memory=None)
    target.path.mkdir(parents=True, exist_ok=True)
    if not target.record.exists():
        target.write_json(target.record, record.describe(sampler, asked, settings, built))
    with target.lock():
        session = Session(target, observer)
        try:
            _begin(session, main, Limits(len(main.experiments), None, main.limits.timeout))
            built.calls.open(session)
            observer.begin(session.state)
            return drive(session, built)
        finally:
            session.close()


def _begin(session: Session, main: State, limits: Limits) -> None:
    """A control starts from the measured default of the run that it is for."""
    created = main.created
    assert created is not None
    if session.state.created is None:
        session.record(replace(created, limits=limits, origin=""))
    if "validation" not in session.state.baseline_scores:
        for stage in main.baseline_stages[len(session.state.baseline_stages) :]:
            if stage.split in (None, "validation"):
                session.record(events.StageFinished(None, stage.attempt, stage.purpose, stage.split, stage.execution))
        session.record(events.Scored(None, "validation", main.baseline_scores["validation"]))
    session.change_limits(limits)
