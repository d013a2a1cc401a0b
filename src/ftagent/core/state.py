"""What is known of a run: the fold of its journal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ftagent.core import events
from ftagent.core.errors import RequestError
from ftagent.core.events import Event, Limits, Record
from ftagent.core.types import STEPS, CallPlace, Experiment, Left, Score, Split, StageRecord, Status, StepName, Trace


class StoredFiles(Mapping[str, str]):
    """An attempt's files on disk, read when asked for and checked against the journal's digests.

    Reading raises RequestError when a file is gone or is not what was recorded.
    """

    def __init__(self, folder: str, digests: Mapping[str, str]) -> None:
        self.folder = folder
        self.digests = digests

    def __getitem__(self, name: str) -> str:
        digest = self.digests[name]
        path = Path(f"{self.folder}/{name}")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RequestError(f"{path}: a recorded file cannot be read ({error.strerror})") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise RequestError(f"{path}: changed since it was recorded")
        return data.decode()

    def __iter__(self) -> Iterator[str]:
        return iter(self.digests)

    def __len__(self) -> int:
        return len(self.digests)


@dataclass
class State:
    """Everything about a run that its journal says. `apply` is the fold's step."""

    path: Path
    created: events.Created | None = None
    limits: Limits = field(default_factory=Limits)
    started_at: float = 0.0
    elapsed: float = 0.0
    cost_usd: float = 0.0
    """Spent on everything, what was taken back included."""
    baseline_scores: dict[Split, Score] = field(default_factory=dict)
    baseline_stages: list[StageRecord] = field(default_factory=list)
    experiments: list[Experiment] = field(default_factory=list)
    """By loop number, without gaps."""
    leader: Experiment | None = None
    """The last experiment that was accepted; None while that is the baseline."""
    starts: list[Left] = field(default_factory=list)
    """What was left of the budget when each loop began."""
    calls: dict[CallPlace, list[events.Called]] = field(default_factory=dict)
    """Replies of language models by place, in order."""
    unpriced_calls: int = 0
    """Calls whose price is unknown: `cost_usd` is a lower bound where there are any."""
    _shown: list[Experiment] = field(default_factory=list)
    """`experiments` without their test scores, kept beside them so that a trace costs no pass over all."""
    test_openings: int = 0
    test_is_open: bool = False
    """Opened by a finish that has not ended yet."""
    selected: events.Selected | None = None
    status: Status | None = None
    """Set once finished; None while there is work left."""

    @property
    def steps_done(self) -> int:
        return sum(STEPS.index(experiment.last_step) + 1 for experiment in self.experiments)

    def complete(self, loop: int) -> bool:
        """Whether all four steps of `loop` are done."""
        return loop < len(self.experiments) and self.experiments[loop].last_step == "feedback"

    def reached(self, loop: int, step: StepName) -> bool:
        """Whether `step` of `loop` is done."""
        if loop >= len(self.experiments):
            return False
        return STEPS.index(self.experiments[loop].last_step) >= STEPS.index(step)

    def trace(self, loop: int, seen: int) -> Trace:
        """The trace for a step of `loop` that may see the first `seen` experiments, test scores removed."""
        created = self.created
        if created is None:
            raise ValueError("a run without its first event has no trace")
        known = tuple(self._shown[:seen])
        pending = tuple(experiment.hypothesis for experiment in self.experiments[seen:loop])
        baseline = self.baseline_scores.get("validation")
        left = self.starts[loop] if loop < len(self.starts) else None
        trained = tuple(record for record in self.baseline_stages if record.purpose == "full")
        return Trace(loop, created.seed, created.direction, baseline, known, pending, left, trained)

    def apply(self, record: Record) -> None:
        """Take in one event. Raises ValueError where the journal contradicts itself."""
        self.elapsed = max(self.elapsed, record.elapsed)
        event = record.event
        self.cost_usd += cost_of(event)
        match event:
            case events.Created():
                self.created, self.limits, self.started_at = event, event.limits, record.at
            case events.LimitsChanged():
                self.limits = event.limits
                self.status = None
            case events.Rewound():
                raise ValueError("rewound events are resolved before the fold")
            case events.TestOpened():
                self.test_openings += 1
                self.test_is_open = True
            case events.Selected():
                self.selected = event
            case events.Finished():
                self.status = event.status
                self.test_is_open = False
            case events.LoopStarted():
                if event.loop != len(self.starts):
                    raise ValueError(f"loop {event.loop} begun after {len(self.starts)} loops")
                self.starts.append(event.left)
            case events.Called():
                self._call(event)
            case events.Proposed():
                self._propose(event)
            case events.StageFinished(loop=None):
                self.baseline_stages.append(StageRecord(event.purpose, event.split, event.attempt, event.execution))
            case events.Scored(loop=None):
                self.baseline_scores[event.split] = event.score
            case _:
                self._advance(event)

    def _propose(self, event: events.Proposed) -> None:
        if event.loop != len(self.experiments):
            raise ValueError(f"loop {event.loop} proposed after {len(self.experiments)} loops")
        asked = self.calls.get(CallPlace(event.loop, "propose"), ())
        cost = event.cost_usd + sum(call.cost_usd or 0.0 for call in asked)
        self.experiments.append(Experiment(event.loop, event.hypothesis, cost_usd=cost))
        self._shown.append(self.experiments[-1])
        self._unfinish()

    def _call(self, event: events.Called) -> None:
        self.calls.setdefault(CallPlace(event.loop, event.step, event.attempt), []).append(event)
        self.unpriced_calls += event.cost_usd is None
        if event.loop is not None and event.loop < len(self.experiments):
            old = self.experiments[event.loop]
            new = replace(old, cost_usd=old.cost_usd + (event.cost_usd or 0.0))
            self.experiments[event.loop], self._shown[event.loop] = new, _without_test(new)

    def _advance(self, event: Event) -> None:
        loop: int = event.loop  # type: ignore[union-attr,assignment]  # only events of a loop come here
        old = self.experiments[loop]
        match event:
            case events.Coded():
                files = StoredFiles(f"{self.path}/Loop_{loop}/coding/attempt_{event.attempt}", event.files)
                new = replace(old, files=files, attempts=event.attempt + 1, cost_usd=old.cost_usd + event.cost_usd)
            case events.StageFinished():
                stage = StageRecord(event.purpose, event.split, event.attempt, event.execution)
                new = replace(old, stages=(*old.stages, stage))
            case events.Built():
                new = replace(old, failure=event.failure, last_step="code")
            case events.Scored():
                new = replace(old, scores={**old.scores, event.split: event.score})
            case events.Ran():
                new = replace(
                    old, failure=event.failure, last_step="run", seconds=event.seconds,
                    losses=event.losses, curve=event.curve,
                )  # fmt: skip
            case events.Reflected():
                cost = old.cost_usd + event.cost_usd
                new = replace(old, feedback=event.feedback, last_step="feedback", cost_usd=cost)
            case _:
                raise ValueError(f"{type(event).__name__} is no event of a loop")
        self.experiments[loop] = new
        self._shown[loop] = _without_test(new)
        if isinstance(event, events.Reflected):
            self._unfinish()
            if event.feedback.decision == "accept":
                self.leader = self._shown[loop]

    def _unfinish(self) -> None:
        """There is more to choose from than when the run was last finished."""
        self.status, self.selected, self.test_is_open = None, None, False


def effective(records: Iterable[Record]) -> list[Record]:
    """The records that still count: what a `rewound` event takes back is left out, and so is that event."""
    kept: list[Record] = []
    for record in records:
        if isinstance(record.event, events.Rewound):
            back = record.event
            kept = [earlier for earlier in kept if not _taken_back(earlier.event, back)]
        else:
            kept.append(record)
    return kept


def fold(path: Path, records: Sequence[Record]) -> State:
    """The state of the run at `path`. Raises ValueError where the journal contradicts itself."""
    state = State(path)
    for record in effective(records):
        state.apply(record)
    # Time and money spent on what was taken back are spent all the same.
    state.elapsed = max((record.elapsed for record in records), default=0.0)
    state.cost_usd = sum(cost_of(record.event) for record in records)
    state.unpriced_calls = sum(isinstance(r.event, events.Called) and r.event.cost_usd is None for r in records)
    return state


def _taken_back(event: Event, back: events.Rewound) -> bool:
    if isinstance(event, events.Selected | events.Finished):
        return True
    if isinstance(event, events.Created | events.LimitsChanged | events.Rewound | events.TestOpened):
        return False
    if event.loop is None or event.loop < back.loop:
        return False
    return event.loop > back.loop or STEPS.index(step_of(event)) >= STEPS.index(back.step)


def cost_of(event: Event) -> float:
    """Dollars that an event tells of; an unknown price counts as nothing."""
    return getattr(event, "cost_usd", None) or 0.0


def step_of(event: Event) -> StepName:
    """The step that an event of a loop belongs to."""
    match event:
        case events.Called():
            return event.step
        case events.Proposed() | events.LoopStarted():
            return "propose"
        case events.Coded() | events.Built() | events.StageFinished(purpose="debug"):
            return "code"
        case events.Reflected():
            return "feedback"
        case _:
            return "run"


def _without_test(experiment: Experiment) -> Experiment:
    if "test" not in experiment.scores:
        return experiment
    return replace(experiment, scores={split: s for split, s in experiment.scores.items() if split != "test"})
