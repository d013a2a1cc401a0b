"""A tuned run as its journal and run.json record it, written by the real journal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftagent.core import events
from ftagent.core.journal import Journal
from ftagent.core.run_folder import RunFolder
from ftagent.core.search_plan import SearchPlan
from ftagent.core.statistics import score_of
from ftagent.core.types import Decision, Direction, Execution, Feedback, Hypothesis, Left, Parameter, Score

ITEMS = 200
SPACE = (
    Parameter("LEARNING_RATE", "float", 2e-5, 1e-6, 1e-3, log=True),
    Parameter("TRAIN_BATCH_SIZE", "int", 16, 4, 64),
    Parameter("SCHEDULE", "choice", "linear", choices=("linear", "cosine")),
    Parameter("OUTPUT_DIR_ROOT", "choice", "out", choices=("out",), tunable=False),
)


@dataclass(frozen=True)
class Tried:
    """One trial: what it changed of the default and what came of it; rate None is no score."""

    params: dict[str, Any]
    rate: float | None
    notes: tuple[str, ...] = ()
    details: dict[str, float] | None = None
    stop: str = ""
    """The rule by which it was stopped early."""
    failure: str = ""
    curve: tuple[tuple[int, float], ...] = ()
    seconds: float = 10.0


TRIED = (
    Tried({"LEARNING_RATE": 5e-5}, 0.70, details={"latency_ms": 8.0}, curve=((10, 0.4), (20, 0.6))),
    Tried({"LEARNING_RATE": 1e-3}, None, stop="dev 0.21 at step 10 is below 0.40", curve=((10, 0.21),)),
    Tried({"LEARNING_RATE": 5e-5, "TRAIN_BATCH_SIZE": 64}, 0.80, ("TRAIN_BATCH_SIZE 100 was clamped to 64",),
          {"latency_ms": 12.0}, curve=((10, 0.5), (20, 0.7))),
    Tried({"LEARNING_RATE": 5e-5, "SCHEDULE": "cosine"}, None, failure="train: exit code 1: no <b>metrics</b> | none"),
    Tried({"LEARNING_RATE": 1e-4, "TRAIN_BATCH_SIZE": 64}, 0.78, details={"latency_ms": 20.0}),
)  # fmt: skip


def score(split: str, rate: float, details: dict[str, float] | None = None, direction: Direction = "maximize") -> Score:
    right = round(rate * ITEMS)
    outcomes = {f"{split}-{index}": float(index < right) for index in range(ITEMS)}
    return score_of("accuracy", outcomes, direction=direction, details=details or {})


def record_tuning(
    path: Path,
    plan: SearchPlan | None = None,
    tried: Iterable[Tried] = TRIED,
    finish: bool = True,
    direction: Direction = "maximize",
    selected: int | None = 2,
) -> RunFolder:
    """The default scores 0.6; the test is opened once."""
    folder = RunFolder(path)
    path.mkdir(parents=True)
    tuning = {"plan": plan or SearchPlan(), "space": SPACE, "baseline_params": {"TRAIN_BATCH_SIZE": 32}}
    folder.write_json(folder.record, {"request": {"scenario": "hpo"}, "tuning": tuning})
    journal = Journal(folder.journal)
    default = score("validation", 0.6, {"latency_ms": 5.0}, direction)
    trained = Execution("train", "ok", 12.0, peak_mb=300.0)
    for event in (
        events.Created("hpo", "accuracy", direction, 3, events.Limits(loop_n=9), sealed=True),
        events.StageFinished(None, 0, "full", None, trained),
        events.Scored(None, "validation", default),
    ):
        journal.append(event)
    for loop, one in enumerate(tried):
        for event in _loop(loop, one, direction):
            journal.append(event)
    for event in _finish(selected, direction) if finish else ():
        journal.append(event)
    journal.close()
    return folder


def _loop(loop: int, one: Tried, direction: Direction) -> Iterable[events.Event]:
    yield events.LoopStarted(loop, Left(None, None, None))
    yield events.Proposed(loop, Hypothesis(f"try {loop}", "it may help", params=dict(one.params), notes=one.notes))
    yield events.Coded(loop, 0, {})
    yield events.Built(loop)
    end, detail = ("failed", f"stopped early: {one.stop}") if one.stop else ("ok", "")
    yield events.StageFinished(
        loop, 0, "full", None, Execution("train", end, one.seconds, peak_mb=300.0, detail=detail)
    )  # type: ignore[arg-type]
    if one.rate is not None:
        yield events.Scored(loop, "validation", score("validation", one.rate, one.details, direction))
    yield events.Ran(loop, f"train: {detail}" if one.stop else one.failure, one.seconds + 1, (), one.curve)
    decision: Decision = "failed" if one.rate is None else "accept" if one.rate in (0.7, 0.8) else "reject"
    yield events.Reflected(loop, Feedback(decision, "as measured", ("it moved",), f"advice {loop}"))


def _finish(selected: int | None, direction: Direction) -> Iterable[events.Event]:
    yield events.TestOpened("finish", () if selected is None else (selected,))
    yield events.Scored(None, "test", score("test", 0.55, None, direction))
    if selected is not None:
        yield events.Scored(selected, "test", score("test", 0.75, None, direction))
        yield events.Selected(
            selected, "improved", "test", 1e-5, 1, "McNemar exact on 200 test items: difference +0.2000"
        )
    else:
        yield events.Selected(None, "tie", "validation", None, 0, "nothing scored better than the baseline")
    yield events.Finished("completed")
