"""Who watches a run: the terminal, JSON lines, a web page. Watching never changes a run."""

from __future__ import annotations

from typing import Protocol

from ftagent.core.events import Record
from ftagent.core.state import State
from ftagent.core.types import StepName


class Observer(Protocol):
    """Called from the run's own thread; must return quickly."""

    def begin(self, state: State) -> None:
        """A session starts (new or resumed) with this state; `state` is live and changes with every event."""
        ...

    def event(self, record: Record) -> None:
        """An event was journaled."""
        ...

    def step(self, loop: int | None, step: StepName | None, stage: str) -> None:
        """`stage` starts in `step` of `loop`; loop None is the baseline, step None the finish."""
        ...

    def line(self, loop: int | None, stage: str, text: str) -> None:
        """A command printed a line. Trainers print JSON objects with `step` and `loss`."""
        ...

    def note(self, text: str) -> None:
        """One line for the user: a warning, what was chosen and why."""
        ...


class Silent:
    """Watches nothing."""

    def begin(self, state: State) -> None: ...

    def event(self, record: Record) -> None: ...

    def step(self, loop: int | None, step: StepName | None, stage: str) -> None: ...

    def line(self, loop: int | None, stage: str, text: str) -> None: ...

    def note(self, text: str) -> None: ...
