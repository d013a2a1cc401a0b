"""Which weights stay on disk while a run goes on: those of the best experiment and its challengers."""

from __future__ import annotations

from ftagent.core import policy
from ftagent.core.executor import Executor
from ftagent.core.options import EngineOptions
from ftagent.core.outputs import list_models
from ftagent.core.session import Session
from ftagent.core.types import Brief


class Keeper:
    """Drops weights that can no longer win, and keeps `models/` true where a run has one."""

    def __init__(self, session: Session, executor: Executor, options: EngineOptions, brief: Brief) -> None:
        self._session = session
        self._executor = executor
        self._keep = options.keep
        self._options = options.policy
        self._control = options.control
        self._lists = brief.plan is not None
        self._keeping: list[int] | None = None

    def after(self, loop: int) -> None:
        """Look again once `loop` has its feedback; those in flight are never touched."""
        if self._keep != "all":
            self._drop(loop)
        self.tidy()

    def tidy(self) -> None:
        """List the models that are there."""
        if self._lists:
            session = self._session
            loops = (None, *(experiment.loop for experiment in session.state.experiments))
            there = {loop: self._executor.model(loop) for loop in loops if self._executor.has_model(loop)}
            list_models(session.folder.path, there, session.journal.records)

    def _drop(self, loop: int) -> None:
        state = self._session.state
        if self._control:
            self._executor.drop_weights(loop)
            return
        if self._keeping is None:
            self._keeping = [n for n in range(loop) if state.complete(n) and self._executor.has_weights(n)]
        held = [state.experiments[number] for number in (*self._keeping, loop)]
        baseline = state.baseline_scores.get("validation")
        direction = state.created.direction if state.created else "maximize"
        keep = policy.challengers(held, baseline, direction, self._options)
        if state.leader is not None and state.leader.loop not in keep:
            keep.append(state.leader.loop)
        for experiment in held:
            if experiment.loop not in keep:
                self._executor.drop_weights(experiment.loop)
        self._keeping = keep
