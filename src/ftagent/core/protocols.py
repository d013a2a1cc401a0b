"""The three things a run is put together from. Everything else in core works on these alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ftagent.core.types import (
    Brief,
    Candidate,
    Estimate,
    Execution,
    Experiment,
    Feedback,
    Files,
    Hypothesis,
    Outcome,
    Purpose,
    Score,
    Split,
    Stage,
    Trace,
)

OnLine = Callable[[str], None]
"""Receives each line that a command prints, without its newline, as it is printed."""


class Scenario(Protocol):
    """What is improved and how it is measured. It knows neither agent nor environment."""

    name: str

    def brief(self) -> Brief: ...

    def estimate(self) -> Estimate: ...

    def baseline(self) -> Candidate:
        """The untouched starting point; its `loop` is None."""
        ...

    def stages(self, candidate: Candidate, purpose: Purpose, split: Split | None = None) -> list[Stage]:
        """Commands in order. `debug`: a cheap rehearsal; `full`: data and training (none for the baseline);
        `predict`: leave `predictions.jsonl` for `split` ([] where the scenario has no such split)."""
        ...

    def inspect(self, stage: Stage, workspace: Path) -> None:
        """Look at what a finished stage left. Raises StageRefused to end the experiment (overlap gate)."""
        ...

    async def score(self, predictions: Path, split: Split) -> Score:
        """In our process, with the answers. Raises ScoreUnavailable when the metric cannot be computed."""
        ...


class Agent(Protocol):
    """Who proposes, writes code, repairs and reflects. It knows no scenario but through its brief."""

    name: str

    async def propose(self, brief: Brief, trace: Trace) -> Hypothesis: ...

    async def code(self, brief: Brief, trace: Trace, hypothesis: Hypothesis) -> Files: ...

    async def repair(self, brief: Brief, experiment: Experiment, failure: Execution) -> Files:
        """New files after a failed debug stage; `experiment.files` are those that failed."""
        ...

    async def reflect(self, brief: Brief, trace: Trace, experiment: Experiment, outcome: Outcome) -> Feedback: ...


class Environment(Protocol):
    """Where commands execute."""

    name: str

    @property
    def sealed(self) -> bool:
        """True when a command can read neither answers nor the network; otherwise scores are labelled *not sealed*."""
        ...

    async def prepare(self, purpose: Purpose) -> None:
        """Make ready. Raises EnvironmentUnavailable."""
        ...

    async def modules(self) -> frozenset[str]:
        """Top-level names that a Python command can import; empty when unknown. Cheap to ask again."""
        ...

    async def execute(self, stage: Stage, workspace: Path, on_line: OnLine, log: Path) -> Execution:
        """Run `stage` in `workspace`; its output goes to `on_line` and, bounded, to file `log`.

        Never raises for what the command did. Raises EnvironmentUnavailable for what is ours. When the task
        is cancelled, the whole process tree is dead before CancelledError propagates.
        """
        ...

    async def close(self) -> None: ...
