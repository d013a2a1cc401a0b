"""The one place where a scenario, an agent and an environment are put together into a run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftagent import controls, parts, record
from ftagent.concluding import conclude
from ftagent.contexts import hub_access
from ftagent.core import events
from ftagent.core.documents import finished
from ftagent.core.engine import Ended, Engine
from ftagent.core.errors import FtagentError, RequestError, StorageFull
from ftagent.core.events import Limits, Place
from ftagent.core.run_folder import RunFolder, create
from ftagent.core.session import Session
from ftagent.core.state import State
from ftagent.request import EvaluateRequest, RunRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from ftagent.core.observer import Observer
    from ftagent.core.options import Gate
    from ftagent.evaluation.benchmark import Benchmark
    from ftagent.evaluation.evaluate import Evaluation
    from ftagent.parts import Parts
    from ftagent.settings import Settings

_SAMPLING_TEMPERATURE = 0.7
EXIT_CODES = {"completed": 0, "failed": 1, "budget": 3, "stopped": 3}


@dataclass(frozen=True)
class Result:
    """How a session ended."""

    run: Path
    exit_code: int
    document: dict[str, Any]
    """The `finished` document of CLI.md."""
    error: str = ""
    """One line when the run failed."""
    tuning_report: Path | None = None
    """Of a run with a plan."""


def start(request: RunRequest, settings: Settings, observer: Observer, gate: Gate | None = None) -> Result:
    """Create a run and go on until a limit. Raises RequestError before anything is created.

    `gate`: who can be asked between loops, where the run is to ask.
    """
    request = parts.merged(request, settings)
    built = parts.gated(parts.build(request, settings, observer.note), request.interactive, gate, observer.note)
    parts.check_fit(built.scenario.estimate(), request, built.hardware)
    parts.check_cap(built, request.limits)
    controls.check(request, built)
    folder = create(Path(request.log_dir), request.name)
    try:
        folder.write_json(folder.record, record.describe(folder.name, request, settings, built))
    except StorageFull as error:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise RequestError(str(error)) from error
    return _drive(folder, request, built, settings, observer, None, request.limits)


def resume(
    run: Path,
    settings: Settings,
    observer: Observer,
    *,
    place: Place | None = None,
    fork: bool = False,
    limits: Limits | None = None,
    gate: Gate | None = None,
    interactive: bool | None = None,
    with_controls: bool = False,
) -> Result:
    """Go on with a run, or from `place` of it; `fork` copies into a new folder first. None limits: as recorded.

    In `limits`, None fields leave what is recorded; so does None `interactive`.
    Raises RequestError, JournalDamaged, RunLocked.
    """
    folder = RunFolder(run)
    request = record.request_of(folder)
    request = replace(request, controls=request.controls or with_controls or folder.controls.is_dir())
    built = parts.build(request, settings, observer.note, folder)
    controls.check(request, built)
    asks = request.interactive if interactive is None else interactive
    built = parts.gated(built, asks, gate, observer.note)
    parts.check_cap(built, _overriding(folder.state().limits, limits or Limits(None)))
    if fork:
        _check_place(place, folder.state())
        folder = record.fork(folder, place)
        observer.note(f"forked into {folder.path}")
    return _drive(folder, request, built, settings, observer, place, limits or Limits(None))


def _check_place(place: Place | None, state: State) -> None:
    """Raises RequestError when the run has no such place."""
    if place is not None and place.loop >= max(1, len(state.experiments)):
        there = f"0 to {len(state.experiments) - 1}" if state.experiments else "none"
        raise RequestError(f"--from {place}: this run has no loop {place.loop}; there: {there}")


def evaluate(
    benchmark: Benchmark, request: EvaluateRequest, settings: Settings, on_line: Callable[[str], None]
) -> tuple[Evaluation, bool]:
    """Predict in a fresh workspace and score outside; the second value tells whether that was sealed.

    Raises RequestError for a model that cannot be resolved, ScoreUnavailable when predicting failed.
    """
    from ftagent.evaluation.evaluate import evaluate as measure
    from ftagent.evaluation.prediction import Decoding
    from ftagent_llm.models import resolve_model

    tune = settings.finetune
    model = resolve_model(request.model, tune.file_path.absolute(), hub_access(settings))
    environment, _ = parts.environment_of(request.env, settings, note=on_line)
    temperature = _SAMPLING_TEMPERATURE if request.samples > 1 else 0.0
    decoding = Decoding(benchmark.max_new_tokens, temperature=temperature, samples=request.samples)

    async def session() -> Evaluation:
        with tempfile.TemporaryDirectory(prefix="ftagent-") as folder:
            workspace = Path(folder) / "workspace"
            workspace.mkdir()
            try:
                return await measure(
                    benchmark, request.split, decoding, environment, workspace,
                    model=model.path, adapter=request.adapter, limit=request.limit, pass_k=tune.benchmark_pass_k,
                    time_limit=tune.benchmark_timeout, gpus=settings.device.cuda_visible_devices or (),
                    on_line=on_line,
                )  # fmt: skip
            finally:
                await environment.close()

    return asyncio.run(session()), environment.sealed


def _drive(
    folder: RunFolder,
    request: RunRequest,
    built: Parts,
    settings: Settings,
    observer: Observer,
    place: Place | None,
    limits: Limits,
) -> Result:
    """One session under the run's lock: create or rewind, loop, report. None in `limits`: as recorded."""
    with folder.lock():
        session = Session(folder, observer)
        try:
            _check_place(place, session.state)
            if session.state.created is None:
                session.record(_created(folder, request, built))
            if place is not None and session.state.experiments:
                session.rewind(place)
            session.change_limits(_overriding(session.state.limits, limits))
            built.calls.open(session)
            observer.begin(session.state)
            if place is not None:
                observer.note(f"gone back to {place}; what came after it is under {folder.path / 'rewound'}")
            for note in built.notes:
                observer.note(note)
            ended, error = _loop(session, built, observer)
            if request.controls and error is None and _is_over(session.state):
                ended, error = _compare(folder, session.state, request, settings, observer, ended)
            document = finished(folder, session.state, ended.status, ended.limit)
            report = conclude(folder, session, document, built, request, observer)
        finally:
            session.close()
    code = error.exit_code if error else EXIT_CODES[ended.status]
    return Result(folder.path, code, document, str(error) if error else "", report)


def _is_over(state: State) -> bool:
    """Whether a run went as far as it was to go."""
    return state.status in ("completed", "budget")


def _compare(
    folder: RunFolder, state: State, request: RunRequest, settings: Settings, observer: Observer, ended: Ended
) -> tuple[Ended, FtagentError | None]:
    """Run the controls of a run that is over; returns how the session ended then."""
    errors: list[FtagentError] = []

    def drive(session: Session, built: Parts) -> bool:
        _, error = _loop(session, built, observer)
        errors.extend([error] if error else [])
        return _is_over(session.state)

    try:
        if controls.run_controls(folder, state, request, settings, observer, drive):
            return ended, None
    except FtagentError as error:  # the run itself is over: it must be reported all the same
        errors.append(error)
    return Ended("stopped"), errors[0] if errors else None


def _overriding(known: Limits, given: Limits) -> Limits:
    """`given` where it says something, else `known`; `--step-n` counts one invocation and is never known."""
    return Limits(
        loop_n=known.loop_n if given.loop_n is None else given.loop_n,
        step_n=given.step_n,
        timeout=known.timeout if given.timeout is None else given.timeout,
        budget_usd=known.budget_usd if given.budget_usd is None else given.budget_usd,
    )


def _loop(session: Session, built: Parts, observer: Observer) -> tuple[Ended, FtagentError | None]:
    if session.state.status is not None and session.state.limits.loop_n == len(session.state.experiments):
        return Ended(session.state.status), None
    engine = Engine(session, built.scenario, built.agent, built.environment, built.options)
    try:
        return asyncio.run(_interruptible(engine, built, observer)), None
    except RequestError:
        raise
    except StorageFull as error:
        return Ended("stopped"), error
    except FtagentError as error:
        return Ended("failed"), error


async def _interruptible(engine: Engine, built: Parts, observer: Observer) -> Ended:
    """Ctrl-C once rolls the step in flight back and stops; twice stops now."""
    task, interrupts = asyncio.current_task(), 0

    def interrupt() -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            if sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\n")  # a live display may have hidden the cursor
            os._exit(130)
        observer.note("stopping: the step in flight is rolled back; once more stops at once")
        if task is not None:
            task.cancel()

    loop = asyncio.get_running_loop()
    with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: whoever embeds us handles signals
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
    try:
        return await engine.run()
    except asyncio.CancelledError:
        if not interrupts:
            raise
        return Ended("stopped")
    finally:
        await built.close()


def _created(folder: RunFolder, request: RunRequest, built: Parts) -> events.Created:
    brief = built.scenario.brief()
    return events.Created(
        scenario=built.scenario.name,
        metric=brief.metric,
        direction=brief.direction,
        seed=request.seed,
        limits=replace(request.limits, step_n=None),
        sealed=built.environment.sealed,
        origin=str(folder.read_record().get("origin", "")),
    )
