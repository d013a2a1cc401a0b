"""Executes a candidate's stages in its workspace, journals each as it ends, and scores what they predict."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

from ftagent.core import events
from ftagent.core.check import STATIC_CHECK, static_check
from ftagent.core.errors import ScoreUnavailable, StageRefused, StoppedEarly, WorkspaceMissing
from ftagent.core.files import make_folder
from ftagent.core.headroom import Headroom
from ftagent.core.protocols import Environment, Scenario
from ftagent.core.search_plan import SearchPlan
from ftagent.core.session import Session
from ftagent.core.types import Brief, Candidate, Execution, Purpose, Score, Split, Stage, StepName
from ftagent.core.workspace import Workspace

PREDICTIONS = "predictions.jsonl"
METRICS = "metrics.jsonl"
_LOSS_POINTS = 40
_LOST_RETRIES = 2


class Executor:
    """Knows where things lie and what was done already; judges nothing."""

    def __init__(self, session: Session, scenario: Scenario, environment: Environment, model_folder: str) -> None:
        self._session = session
        self._model_folder = model_folder
        self._scenario = scenario
        self._environment = environment
        self._headroom = Headroom(session, scenario)

    async def stages(
        self, candidate: Candidate, purpose: Purpose, split: Split | None = None, attempt: int = 0
    ) -> Execution | None:
        """Execute what is not recorded yet. Returns the execution that failed; None when all ended well.

        Raises EnvironmentUnavailable, StorageFull, WorkspaceMissing; LimitReached before a full stage that would end
        after `--timeout`.
        """
        await self._environment.prepare(purpose)
        for stage in self._scenario.stages(candidate, purpose, split):
            done = self._session.find_stage(candidate.loop, purpose, split, attempt, stage.name)
            if done is None:
                if purpose == "full" and candidate.loop is not None:
                    self._headroom.check(candidate.loop, stage)
                execution = await self._execute(stage, candidate, split, attempt)
            else:
                execution = done.execution
            if not execution.ok:
                return execution
        return None

    async def check(self, candidate: Candidate, attempt: int, brief: Brief) -> Execution | None:
        """What can be said against a candidate's files unexecuted, journaled like a stage: a replay may not know what
        was importable. Raises EnvironmentUnavailable."""
        if done := self._session.find_stage(candidate.loop, "debug", None, attempt, STATIC_CHECK):
            return done.execution
        modules = await self._environment.modules()
        failed = static_check(candidate.files, brief.required_files, modules, brief.reserved_files)
        if failed:
            self._session.record(events.StageFinished(candidate.loop, attempt, "debug", None, failed))
        return failed

    async def score(self, candidate: Candidate, split: Split) -> tuple[Score | None, str]:
        """Predict on `split` and score outside. (None, why) where there is no score."""
        loop = candidate.loop
        workspace = self.open_workspace(candidate)
        failed = await self.stages(candidate, "predict", split)
        if failed:
            return None, describe(failed)
        predictions = self._collect(workspace, loop, split)
        try:
            score = await self._scenario.score(predictions, split)
        except ScoreUnavailable as error:
            return None, f"no score: {error}"
        self._session.folder.write_json(self._session.folder.running(loop, f"{split}.json"), score)
        self._session.record(events.Scored(loop, split, score))
        return score, ""

    def losses(self, loop: int) -> tuple[tuple[int, float], ...]:
        """(step, loss) of the full run, at most 40 points; also keeps metrics.jsonl with the record."""
        if not self._trained(loop):
            return ()
        workspace = Workspace(self._session.folder.workspace(loop))
        target = self._session.folder.running(loop, METRICS)
        for name in (METRICS, f"{self._model_folder}/{METRICS}"):
            if workspace.exists(name):
                workspace.collect(name, target)
                break
        return _thin(_read_rows(target, "loss"))

    def curve(self, loop: int, plan: SearchPlan | None) -> tuple[tuple[int, float], ...]:
        """(step, live metric) of the full run where trials may be stopped by it; after `losses`."""
        if plan is None or plan.halving is None or not self._trained(loop):
            return ()
        return _finite(_read_rows(self._session.folder.running(loop, METRICS), plan.halving.metric))

    def open_workspace(self, candidate: Candidate) -> Path:
        """A candidate's workspace, made with its files in it. Raises WorkspaceMissing when it was there and is gone."""
        path, loop = self._session.folder.workspace(candidate.loop), candidate.loop
        if path.exists():
            return path
        if loop is not None and any(r.purpose != "debug" for r in self._session.state.experiments[loop].stages):
            raise self.gone(loop, path)
        Workspace(path).create(candidate.files)
        return path

    def gone(self, loop: int, path: Path) -> WorkspaceMissing:
        """The error for something of `loop` that should be on disk and is not."""
        again = f"`ftagent resume {self._session.folder.path} --from {loop}:run` makes it again"
        return WorkspaceMissing(f"{path}: gone since loop {loop} ran; {again}")

    def model(self, loop: int | None) -> Path:
        """Where an experiment's weights lie; None is the baseline's."""
        return self._session.folder.workspace(loop) / self._model_folder

    def has_model(self, loop: int | None) -> bool:
        """Whether `loop` trained something that is still there."""
        workspace = Workspace(self._session.folder.workspace(loop))
        return self._trained(loop) and workspace.exists(self._model_folder)

    def has_weights(self, loop: int) -> bool:
        """Whether an experiment can still be measured: it trained nothing, or what it trained is there."""
        return not self._trained(loop) or self.model(loop).is_dir()

    def leader_gone(self) -> WorkspaceMissing | None:
        """The error when what is best so far can no longer be measured or kept."""
        leader = self._session.state.leader
        if leader is None or self._session.state.selected or self.has_weights(leader.loop):
            return None
        return self.gone(leader.loop, self.model(leader.loop))

    def _trained(self, loop: int | None) -> bool:
        state = self._session.state
        stages = state.baseline_stages if loop is None else state.experiments[loop].stages
        return any(record.purpose == "full" for record in stages)

    def drop_weights(self, loop: int) -> None:
        """Delete an experiment's weights; everything else of it stays."""
        if self._trained(loop):
            shutil.rmtree(self.model(loop), ignore_errors=True)

    async def _execute(self, stage: Stage, candidate: Candidate, split: Split | None, attempt: int) -> Execution:
        session, loop = self._session, candidate.loop
        step: StepName = "code" if stage.purpose == "debug" else "run"
        path = session.folder.workspace(loop, attempt if stage.purpose == "debug" else None).absolute()
        log = session.folder.running(loop, f"{stage.name}{f'_{split}' if split else ''}.log")
        if stage.purpose == "debug" and loop is not None:
            log = session.folder.attempt(loop, attempt).with_name(f"attempt_{attempt}_{stage.name}.log")
        make_folder(log.parent)
        session.observer.step(loop, step, stage.name)
        for _ in range(1 + _LOST_RETRIES):
            try:
                Workspace(path).write({**candidate.files, **stage.files}, durable=False)
                execution = await self._environment.execute(
                    stage, path, lambda line: session.observer.line(loop, stage.name, line), log
                )
                execution = self._inspected(stage, path, execution)
            except StageRefused as error:
                execution = Execution(stage.name, "failed", 0.0, detail=f"refused: {error}")
            if execution.end != "lost":
                break
            session.observer.note(f"{stage.name}: lost ({execution.detail}); tried again")
        session.record(events.StageFinished(loop, attempt, stage.purpose, split, execution))
        session.folder.write_json(log.with_suffix(".json"), execution)
        return execution

    def _inspected(self, stage: Stage, workspace: Path, execution: Execution) -> Execution:
        """`execution`, failed where the scenario does not accept what it left; time and memory stay accounted for."""
        try:
            if execution.ok:
                self._scenario.inspect(stage, workspace)
        except StoppedEarly as error:
            return replace(execution, end="failed", detail=f"{error.prefix} {error}")
        except StageRefused as error:
            return replace(execution, end="failed", detail=f"refused: {error}")
        return execution

    def _collect(self, workspace: Path, loop: int | None, split: Split) -> Path:
        if not (workspace / PREDICTIONS).exists():
            return workspace
        target = self._session.folder.running(loop, f"predictions_{split}.jsonl")
        Workspace(workspace).collect(PREDICTIONS, target)
        return target


def describe(execution: Execution) -> str:
    """One line: how a stage ended and the best hint at why."""
    code = "failed" if execution.exit_code is None else f"exit code {execution.exit_code}"
    endings = {"timed_out": "over its time limit", "out_of_memory": "out of memory", "killed": "killed",
               "lost": "lost by the environment", "failed": code}  # fmt: skip
    lines = [line for line in execution.tail.splitlines() if line.strip()]
    said = lines[-1].strip()[:300] if lines else "no output"
    hint = said if execution.detail in ("", code) else execution.detail
    if execution.detail.startswith(("refused:", StoppedEarly.prefix)):
        return f"{execution.stage}: {execution.detail}"
    return f"{execution.stage}: {endings.get(execution.end, execution.end)}: {hint}"


def _read_rows(path: Path, key: str) -> list[tuple[int, float]]:
    """(step, value of `key`); with a minus before the key, its negative."""
    points, sign = [], -1.0 if key.startswith("-") else 1.0
    key = key.removeprefix("-")
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            try:
                row = json.loads(line)
                points.append((int(row["step"]), sign * float(row[key])))
            except (ValueError, KeyError, TypeError):
                continue  # untrusted output: a line that does not tell the value tells nothing
    return points


def _finite(points: list[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    return tuple((step, value) for step, value in points if math.isfinite(value))


def _thin(points: list[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    finite = _finite([(step, round(loss, 5)) for step, loss in points])
    stride = max(1, -(-len(finite) // _LOSS_POINTS))
    return tuple(finite[::-1][::stride][::-1])
