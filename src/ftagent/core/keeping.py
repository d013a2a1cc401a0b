"""Which weights stay on disk while a run goes on: those of the best experiment and its challengers."""

from __future__ import annotations

from ftagent.core import policy
from ftagent.core.executor import Executor
from ftagent.core.session import Session


class Keeper:
    """Drops weights that can no longer win. `keep`: `best`, `all` or `none`."""

    def __init__(self, session: Session, executor: Executor, keep: str, options: policy.PolicyOptions) -> None:
        self._session = session
        self._executor = executor
        self._keep = keep
        self._options = options
        self._keeping: list[int] | None = None

    def after(self, loop: int) -> None:
        """Look again once `loop` has its feedback; those in flight are never touched."""
        if self._keep == "all":
            return
        state = self._session.state
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
