"""A run while it is open: the journal's only writer, the state that follows it, and who watches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ftagent.core import events
from ftagent.core.budget import Spent, exhausted, left
from ftagent.core.errors import FtagentError
from ftagent.core.events import Event, Limits, Place
from ftagent.core.journal import Journal
from ftagent.core.observer import Observer
from ftagent.core.run_folder import RunFolder
from ftagent.core.state import State, fold
from ftagent.core.types import STEPS, Left, Purpose, Split, StageRecord, StepName


class LimitReached(FtagentError):
    """A limit ends the run; `limit` is the option that set it."""

    exit_code = 3

    def __init__(self, limit: str) -> None:
        super().__init__(f"{limit} is reached")
        self.limit = limit


class Session:
    """Opens the journal of `folder`; the caller holds the run's lock.

    `starts`: what was left when each loop of a recorded run began, for its replay. Raises JournalDamaged, RequestError.
    """

    def __init__(self, folder: RunFolder, observer: Observer, starts: Sequence[Left] = ()) -> None:
        self.folder = folder
        self._starts = starts
        self.observer = observer
        self.journal = Journal(folder.journal)
        if self.journal.torn:
            observer.note(f"the journal's last line was cut short ({self.journal.torn} bytes); it is dropped")
        self.state: State = fold(folder.path, self.journal.records)
        self._steps = 0

    def record(self, event: Event) -> None:
        """Journal `event`, then let the state and the observer know. Raises StorageFull."""
        record = self.journal.append(event)
        if isinstance(event, events.Rewound):
            self.state = fold(self.folder.path, self.journal.records)
        else:
            self.state.apply(record)
        self.observer.event(record)

    def rewind(self, place: Place) -> None:
        """Take back everything from `place` on; its artefacts move aside, the journal keeps its history."""
        number = sum(isinstance(record.event, events.Rewound) for record in self.journal.records) + 1
        aside = self.folder.path / "rewound" / str(number)
        for loop in range(place.loop, len(self.state.experiments)):
            whole = loop > place.loop or place.step == "propose"
            self._set_aside(loop, place.step, whole, aside / f"Loop_{loop}")
        self.record(events.Rewound(place.loop, place.step))

    def _set_aside(self, loop: int, step: StepName, whole: bool, target: Path) -> None:
        moves = [(self.folder.workspaces / f"Loop_{loop}", target / "workspaces")]
        if whole:
            moves.append((self.folder.path / f"Loop_{loop}", target / "steps"))
        else:
            later = STEPS[STEPS.index(step) :]
            moves += [(self.folder.step(loop, name), target / "steps" / name) for name in later]
            if step == "feedback":
                del moves[0]  # what the run step left is still wanted
        for source, destination in moves:
            if source.exists():
                destination.parent.mkdir(parents=True, exist_ok=True)
                source.rename(destination)

    def begin_step(self) -> None:
        """Count a step against the budget. Raises LimitReached when there is none left."""
        limit = exhausted(self.state.limits, self.spent())
        if limit:
            raise LimitReached(limit)
        self._steps += 1

    def begin_loop(self, loop: int) -> None:
        """Record what is left of the budget for `loop`, once: a resumed loop has what it had."""
        if loop == len(self.state.starts):
            now = self._starts[loop] if loop < len(self._starts) else left(self.state.limits, self.spent())
            self.record(events.LoopStarted(loop, now))

    def spent(self) -> Spent:
        return Spent(len(self.state.experiments), self._steps, self.journal.elapsed, self.state.cost_usd)

    def seconds_left(self) -> float | None:
        """Until `--timeout`; None without one."""
        timeout = self.state.limits.timeout
        return None if timeout is None else max(0.0, timeout - self.journal.elapsed)

    def find_stage(
        self, loop: int | None, purpose: Purpose, split: Split | None, attempt: int, name: str
    ) -> StageRecord | None:
        """The recorded execution of a stage, so that a resumed step does not repeat it."""
        stages = self.state.baseline_stages if loop is None else self.state.experiments[loop].stages
        for record in stages:
            if (record.purpose, record.split, record.attempt, record.execution.stage) == (
                purpose, split, attempt, name):  # fmt: skip
                return record
        return None

    def change_limits(self, limits: Limits) -> None:
        """Journal limits that differ from those recorded; `--step-n` counts one invocation and is only kept here."""
        old = self.state.limits
        totals = Limits(limits.loop_n, None, limits.timeout, limits.budget_usd)
        if totals != Limits(old.loop_n, None, old.timeout, old.budget_usd):
            self.record(events.LimitsChanged(totals))
        self.state.limits = limits

    def close(self) -> None:
        self.journal.close()
