"""An agent that does what a script says: for tests, demonstrations and authors of plug-ins. Ships with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftagent.core.types import Brief, Execution, Experiment, Feedback, Files, Hypothesis, Outcome, Trace


@dataclass(frozen=True)
class Act:
    """One loop of a script. `files` are the attempts in order; none means the scenario's own rendering."""

    params: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    parent: int | None = None
    files: Sequence[Files] = ()


class ScriptedAgent:
    """Plays `acts` by loop number, the last one again and again; without acts, the scenario's defaults."""

    name = "scripted"

    def __init__(self, acts: Sequence[Act] = ()) -> None:
        self._acts = acts or (Act(),)

    async def propose(self, brief: Brief, trace: Trace) -> Hypothesis:
        act = self._act(trace.loop)
        params = {p.name: act.params.get(p.name, p.default) for p in brief.space} | dict(act.params)
        title = act.title or f"act {trace.loop}"
        return Hypothesis(title, "the script says so", parent=act.parent, params=params)

    async def code(self, brief: Brief, trace: Trace, hypothesis: Hypothesis) -> Files:
        act = self._act(trace.loop)
        return act.files[0] if act.files else brief.render(hypothesis.params)

    async def repair(self, brief: Brief, experiment: Experiment, failure: Execution) -> Files:
        files = self._act(experiment.loop).files
        return files[min(experiment.attempts, len(files) - 1)] if files else experiment.files

    async def reflect(self, brief: Brief, trace: Trace, experiment: Experiment, outcome: Outcome) -> Feedback:
        return Feedback(outcome.decision, outcome.reason)

    def _act(self, loop: int) -> Act:
        return self._acts[min(loop, len(self._acts) - 1)]
