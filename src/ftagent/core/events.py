"""What can happen in a run. The journal is a list of these and State is their fold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ftagent.core.types import (
    Direction,
    Execution,
    Feedback,
    Hypothesis,
    Left,
    Purpose,
    Score,
    Split,
    Status,
    StepName,
    Verdict,
)


@dataclass(frozen=True)
class Limits:
    """When a run ends. None is no limit. All but `step_n`, which counts one invocation, are totals of the run."""

    loop_n: int | None = 10
    step_n: int | None = None
    timeout: float | None = None
    """Seconds of wall-clock."""
    budget_usd: float | None = None


@dataclass(frozen=True)
class Created:
    """The first event of every run."""

    scenario: str
    metric: str
    direction: Direction
    seed: int
    limits: Limits
    sealed: bool
    origin: str = ""
    """`RUN LOOP:STEP` where a fork came from."""


@dataclass(frozen=True)
class LimitsChanged:
    limits: Limits


@dataclass(frozen=True)
class Rewound:
    """Everything from `step` of `loop` on, and every later loop, no longer counts."""

    loop: int
    step: StepName


@dataclass(frozen=True)
class LoopStarted:
    """A loop begins; what is left of the budget is recorded because prompts show it and must not change on resume."""

    loop: int
    left: Left


@dataclass(frozen=True)
class Called:
    """A language model replied. The conversation lies in the step's folder as transcript/ATTEMPT.INDEX_ROLE.json."""

    loop: int | None
    step: StepName
    attempt: int
    index: int
    """Among the calls of this place, from 0."""
    role: str
    """`propose`, `code`, `repair`, `reflect`, `judge` or `script`."""
    model: str
    request: str
    """SHA-256 of the request as sent, without credentials."""
    transcript: str
    """SHA-256 of the transcript file."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Reasoning included."""
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt, as the provider counts them."""
    cost_usd: float | None = None
    """None where the model's price is unknown."""
    seconds: float = 0.0
    requests: int = 1
    """HTTP requests that it took, failed ones included; 0 from the cache."""


@dataclass(frozen=True)
class Proposed:
    loop: int
    hypothesis: Hypothesis
    cost_usd: float = 0.0


@dataclass(frozen=True)
class Coded:
    """One attempt's files; their text lies under Loop_N/coding/attempt_K."""

    loop: int
    attempt: int
    files: dict[str, str]
    """Path → SHA-256."""
    cost_usd: float = 0.0


@dataclass(frozen=True)
class StageFinished:
    loop: int | None
    attempt: int
    purpose: Purpose
    split: Split | None
    execution: Execution


@dataclass(frozen=True)
class Built:
    """End of the code step."""

    loop: int
    failure: str = ""


@dataclass(frozen=True)
class Scored:
    loop: int | None
    split: Split
    score: Score


@dataclass(frozen=True)
class Ran:
    """End of the run step."""

    loop: int
    failure: str = ""
    seconds: float = 0.0
    losses: tuple[tuple[int, float], ...] = ()
    curve: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Reflected:
    """End of the feedback step."""

    loop: int
    feedback: Feedback
    cost_usd: float = 0.0


@dataclass(frozen=True)
class TestOpened:
    """The sealed split is about to be read; `why` is `finish` or `grade`."""

    why: str
    loops: tuple[int, ...] = ()


@dataclass(frozen=True)
class Selected:
    """What the run recommends and claims, with the test that the claim rests on."""

    loop: int | None
    verdict: Verdict
    split: Split
    p_value: float | None
    comparisons: int
    reason: str


@dataclass(frozen=True)
class Finished:
    status: Status


Event = (
    Created | LimitsChanged | Rewound | LoopStarted | Called | Proposed | Coded | StageFinished | Built | Scored | Ran
    | Reflected | TestOpened | Selected | Finished
)  # fmt: skip
EVENT_TYPES: dict[str, type[Event]] = {
    "created": Created,
    "limits_changed": LimitsChanged,
    "rewound": Rewound,
    "loop_started": LoopStarted,
    "called": Called,
    "proposed": Proposed,
    "coded": Coded,
    "stage_finished": StageFinished,
    "built": Built,
    "scored": Scored,
    "ran": Ran,
    "reflected": Reflected,
    "test_opened": TestOpened,
    "selected": Selected,
    "finished": Finished,
}
EVENT_NAMES: dict[type[Any], str] = {cls: name for name, cls in EVENT_TYPES.items()}


@dataclass(frozen=True)
class Record:
    """A journal line: an event with its place and time."""

    sequence: int
    at: float
    """Seconds since the epoch."""
    elapsed: float
    """Seconds of wall-clock that the run has used up to here, over all its sessions."""
    event: Event

    @property
    def kind(self) -> str:
        return EVENT_NAMES[type(self.event)]


@dataclass(frozen=True)
class Place:
    """A point that `resume --from` can go back to."""

    loop: int
    step: StepName = field(default="propose")

    def __str__(self) -> str:
        return f"{self.loop}:{self.step}"
