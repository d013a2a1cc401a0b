"""The records that the loop is about. All are frozen; all but `Brief` become JSON as they stand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ftagent.core.search_plan import SearchPlan

Files = Mapping[str, str]
"""Relative POSIX path → text."""

Direction = Literal["maximize", "minimize"]
Purpose = Literal["debug", "full", "predict"]
Split = Literal["validation", "confirm", "test"]
"""`validation` steers the loop, `confirm` separates candidates that validation cannot, `test` is sealed."""
StepName = Literal["propose", "code", "run", "feedback"]
STEPS: tuple[StepName, ...] = ("propose", "code", "run", "feedback")
End = Literal["ok", "failed", "timed_out", "out_of_memory", "killed", "lost"]
Decision = Literal["accept", "reject", "failed"]
Verdict = Literal["improved", "tie", "worse"]
Status = Literal["completed", "budget", "stopped", "failed"]


@dataclass(frozen=True)
class Parameter:
    """One dimension of a scenario's search space."""

    name: str
    kind: Literal["float", "int", "choice"]
    default: Any
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    description: str = ""
    tunable: bool = True
    """False: shown, never changed (an output folder, for example)."""
    cost: str = ""
    """A hint for people and models: what a larger value costs."""


@dataclass(frozen=True)
class Brief:
    """What an agent is told: all it needs and nothing that it must not know."""

    scenario: str
    goal: str
    data: str
    file_contract: str
    hardware: str
    metric: str
    direction: Direction
    space: tuple[Parameter, ...]
    render: Callable[[Mapping[str, Any]], Files]
    model_folder: str = "model"
    """Workspace folder in which full stages leave the weights or the adapter."""
    baseline_params: Mapping[str, Any] = field(default_factory=dict)
    """Where the search starts; the defaults of `space` where it is silent."""
    details: str = ""
    """For prompts: each dataset with its fields and samples, limits of a stage, how answers are read."""
    required_files: tuple[str, ...] = ()
    """Files without which an experiment cannot be executed."""
    reserved_files: tuple[str, ...] = ()
    """Files and folders that stages write: an experiment that brought one could replace what was checked."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Jinja templates by name (`system`, `propose`, `code`, `repair`, `reflect`); an agent has its own for the rest."""
    plan: SearchPlan | None = None
    """Set where the loops are rounds or trials of one configuration: an agent that tunes then takes the lead."""


@dataclass(frozen=True)
class Hypothesis:
    """What the agent wants to try, why, and on which parent (a loop number; None is the baseline)."""

    title: str
    reason: str
    parent: int | None = None
    kind: Literal["draft", "improve", "debug"] = "draft"
    expected_effect: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    measure: str = ""
    """What to look at afterwards, apart from the score."""
    notes: tuple[str, ...] = ()
    """What was changed in it and why, such as a value that was clamped to its range."""
    abandoned: str = ""
    """Why there is nothing to try (the agent gave no usable proposal); the loop then fails without code."""
    plan: dict[str, Any] = field(default_factory=dict)
    """Of an agent that tunes: its place in the search, and what was decided for later loops (see agents/tuning)."""


@dataclass(frozen=True)
class Resources:
    """Upper bounds of one command. 0 means no bound of that kind; `gpus` are device ids."""

    cpus: int = 0
    memory_mb: int = 0
    processes: int = 4096
    """Threads count."""
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mount:
    """A host folder or file that a stage may read. The command finds it in variable FTAGENT_INPUT_<NAME>."""

    name: str
    source: str


@dataclass(frozen=True)
class Stage:
    """One command in a workspace. A leading `python` in `command` means the environment's interpreter."""

    name: str
    purpose: Purpose
    command: tuple[str, ...]
    time_limit: float = 0.0
    """Seconds; 0 is none."""
    resources: Resources = Resources()
    network: bool = False
    llm: bool = False
    """Its scripts may ask language models, where the run has one; that needs no network."""
    mounts: tuple[Mount, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    files: Files = field(default_factory=dict)
    """Written into the workspace before the command starts (questions, never answers)."""
    inputs: tuple[str, ...] = ()
    """Workspace files that the command reads; with `command` and `files` they are the identity of its result."""
    outputs: tuple[str, ...] = ()
    """Workspace files or folders that must exist afterwards, else the stage counts as failed."""
    reusable: bool = False
    """Whether an earlier result of the same command on the same workspace and mounts does as well as a new one."""
    adapts: bool = False
    """The command itself starts again, with less, what was killed for want of memory: then only its own end counts."""


@dataclass(frozen=True)
class Execution:
    """How a command ended. Never the place for a score."""

    stage: str
    end: End
    seconds: float
    exit_code: int | None = None
    signal: int | None = None
    peak_mb: float | None = None
    detail: str = ""
    """One line: what was exceeded, which output is missing, which limit could not be applied."""
    tail: str = ""
    """The last lines of the output, at most 4 KiB."""

    @property
    def ok(self) -> bool:
        return self.end == "ok"


@dataclass(frozen=True)
class Score:
    """A metric over `n` items. `outcomes` maps item id to that item's mean over samples."""

    metric: str
    value: float
    n: int
    stderr: float
    ci95: tuple[float, float]
    direction: Direction = "maximize"
    samples: int = 1
    outcomes: dict[str, float] = field(default_factory=dict)
    statistic: Literal["mean", "item_mean", "runs", "spearman"] = "mean"
    """What `value` is of the outcomes. `item_mean`: ids are GROUP/ITEM, an item is measured in each group (seed).
    `runs`: an outcome is a whole training. `spearman`: predictions of gold values `references`, ids as before."""
    references: dict[str, float] = field(default_factory=dict)
    details: dict[str, float] = field(default_factory=dict)
    """Further metrics by name, for example `valid_rate`."""
    errors: dict[str, int] = field(default_factory=dict)
    """Error category → number of items, for reflection; validation only."""
    mistakes: tuple[str, ...] = ()
    """A few excerpts of mispredicted outputs with their category, for reflection; validation only, no answers."""
    notes: tuple[str, ...] = ()
    """What happened while it was measured that people should know, such as a batch that had to be lowered."""
    adjusted: dict[str, float] = field(default_factory=dict)  # parameter → what it was measured with instead

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or self.n < 1:
            raise ValueError(f"{self.metric}: {self.value} over {self.n} items is no score")

    def summary(self) -> dict[str, Any]:
        """The `S` of the command line's JSON."""
        return {"metric": self.metric, "value": self.value, "n": self.n, "stderr": self.stderr, "ci95": list(self.ci95)}


@dataclass(frozen=True)
class Feedback:
    """The verdict on an experiment."""

    decision: Decision
    reason: str
    observations: tuple[str, ...] = ()
    next: str = ""


@dataclass(frozen=True)
class Candidate:
    """Something that can be executed and scored. `loop` is None for the untouched base model."""

    loop: int | None
    files: Files
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageRecord:
    """An execution with the place in the run where it happened."""

    purpose: Purpose
    split: Split | None
    attempt: int
    execution: Execution


@dataclass(frozen=True)
class Experiment:
    """One loop as far as it got."""

    loop: int
    hypothesis: Hypothesis
    files: Files = field(default_factory=dict)
    attempts: int = 0
    stages: tuple[StageRecord, ...] = ()
    scores: Mapping[Split, Score] = field(default_factory=dict)
    failure: str = ""
    """Why it has no score, one line; empty when it has one or is not that far."""
    feedback: Feedback | None = None
    last_step: StepName = "propose"
    """The last step that is complete."""
    cost_usd: float = 0.0
    seconds: float = 0.0
    losses: tuple[tuple[int, float], ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    """Points of the full run: (step, training loss), thinned, and (step, live metric of `Halving`)."""

    @property
    def validation(self) -> Score | None:
        return self.scores.get("validation")


@dataclass(frozen=True)
class Left:
    """What a run still had when a loop began, that loop included. None is no limit."""

    loops: int | None
    seconds: float | None
    usd: float | None


@dataclass(frozen=True)
class CallPlace:
    """Where in a run a language model was asked. `loop`: None before the first; `attempt`: of the code step."""

    loop: int | None
    step: StepName
    attempt: int = 0


@dataclass(frozen=True)
class Trace:
    """What a step of `loop` sees: experiments in order of submission, those in flight. Never a test score."""

    loop: int
    seed: int
    direction: Direction
    baseline: Score | None
    experiments: tuple[Experiment, ...] = ()
    pending: tuple[Hypothesis, ...] = ()
    left: Left | None = None
    baseline_stages: tuple[StageRecord, ...] = ()
    """Full ones, where the baseline is a configuration that was trained."""


@dataclass(frozen=True)
class Outcome:
    """What the run step hands to reflection."""

    score: Score | None
    failure: str
    decision: Decision
    reason: str


@dataclass(frozen=True)
class Estimate:
    """What a run will need. As much disk must be free before the run and before each full stage."""

    disk_mb: float
    memory_mb: float
    seconds_per_loop: float
    notes: tuple[str, ...] = ()
