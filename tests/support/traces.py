"""Made-up histories of runs, as varied as real ones: for tests and measurements of prompts."""

from __future__ import annotations

from random import Random

from ftagent.core.statistics import score_of
from ftagent.core.types import (
    Brief,
    Execution,
    Experiment,
    Feedback,
    Files,
    Hypothesis,
    Left,
    Outcome,
    Score,
    StageRecord,
    Trace,
)

ITEMS = 200
CATEGORIES = ("wrong_number", "no_answer", "off_by_one", "wrong_number_of_digits")
IDEAS = (
    "Teach every intermediate step of the carry instead of the result alone",
    "Sort the rows by length, so that short sums are learnt before long ones",
    "Drop rows whose solution does not end with the answer",
    "Mix one row in ten with a rephrased question",
    "End every answer with a boxed number that is read without doubt",
    "Put adapters on the attention of the last layers alone",
)
FAILURES = (
    "train: out of memory: 2048 MB are exceeded (peak 2047.3 MB)",
    "prepare_data: exit code 1: KeyError: 'answers'",
    "prepare_data: refused: train.jsonl: 3 rows are items of the benchmark (line 12: exact; line 80: exact)",
    "train: exit code 2: error: train.yaml: unknown key 'lr'; did you mean 'learning_rate'?",
)
TRACEBACK = """loading rows
read 2000 rows
Traceback (most recent call last):
  File "/runs/a/workspaces/Loop_3/debug_0/prepare_data.py", line 81, in <module>
    main()
  File "/runs/a/workspaces/Loop_3/debug_0/prepare_data.py", line 74, in main
    rows = [convert(row) for row in rows]
  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode
    raise JSONDecodeError("Expecting value", s, err.value) from None
KeyError: 'answers'
"""


def score(share: float, rng: Random, brief: Brief) -> Score:
    """With about `share` of the items right, error categories and excerpts of wrong outputs."""
    outcomes = {f"validation-{item}": float(rng.random() < share) for item in range(ITEMS)}
    wrong = int(ITEMS - sum(outcomes.values()))
    errors = {category: wrong // (2 + number) for number, category in enumerate(CATEGORIES)}
    made = score_of(brief.metric, outcomes, direction=brief.direction, errors=errors)
    excerpts = tuple(f'{category}: "58 + 26 = {rng.randint(10, 99)}"' for category in CATEGORIES)
    return Score(**{**vars(made), "mistakes": excerpts})


def hypothesis(brief: Brief, loop: int, parent: Experiment | None, rng: Random | None = None) -> Hypothesis:
    """Two changed parameters and an idea."""
    rng = rng or Random(loop)
    params = dict(parent.hypothesis.params) if parent else {p.name: p.default for p in brief.space}
    for parameter in rng.sample(brief.space, min(2, len(brief.space))):
        low, high = parameter.low or 0.0, parameter.high or 1.0
        value = rng.choice(parameter.choices) if parameter.kind == "choice" else float(f"{rng.uniform(low, high):.3g}")
        params[parameter.name] = int(value) if parameter.kind == "int" else value
    return Hypothesis(
        title=f"{IDEAS[loop % len(IDEAS)]} (variant {loop})",
        reason="The wrong outputs of the parent are mostly off by one carry. " * rng.randint(1, 4),
        parent=parent.loop if parent else None,
        kind="improve" if parent else "draft",
        expected_effect=f"{brief.metric} up by 0.0{rng.randint(1, 9)}",
        params=params,
        measure="the share of outputs without an answer",
    )


def experiment(loop: int, brief: Brief, rng: Random, parent: Experiment | None, files: Files) -> Experiment:
    """A finished loop; one in four fails."""
    proposed = hypothesis(brief, loop, parent, rng)
    failed = FAILURES[loop % len(FAILURES)] if loop % 4 == 3 else ""
    made = None if failed else score(0.3 + 0.3 * rng.random(), rng, brief)
    execution = Execution("train", "failed" if failed else "ok", 12.0, exit_code=int(bool(failed)), tail=TRACEBACK)
    seen = (
        "accuracy moved by less than two standard errors; the loss still falls at the end, so the model learns slowly",
        "two thirds of the wrong outputs have the right number of digits, the form is learnt",
        "the hypothesis held",
    )
    return Experiment(
        loop, proposed, files, attempts=1, stages=(StageRecord("full", None, 0, execution),),
        scores={} if made is None else {"validation": made}, failure=failed, last_step="feedback", seconds=60.0,
        feedback=Feedback("failed" if failed else "accept" if loop % 3 == 0 else "reject", "posterior mean", seen,
                          "teach the second carry too, and leave the learning rate alone"),
        losses=tuple((step, 2.0 / (1 + step)) for step in range(20)),
    )  # fmt: skip


def trace(brief: Brief, loops: int, seed: int = 0, left: Left | None = None) -> Trace:
    """The trace that loop `loops` sees."""
    rng = Random(seed)
    baseline = score(0.3, rng, brief)
    files = dict(brief.render({}))
    known: list[Experiment] = []
    for loop in range(loops):
        scored = [e for e in known if e.validation is not None]
        known.append(experiment(loop, brief, rng, rng.choice(scored) if len(scored) > 1 else None, files))
    return Trace(loops, seed, brief.direction, baseline, tuple(known), (), left)


def failed_experiment(brief: Brief, loop: int = 3) -> tuple[Experiment, Execution]:
    """An experiment whose first attempts failed, and the failure that is to be repaired."""
    made = experiment(loop, brief, Random(loop), None, dict(brief.render({})))
    failures = [
        Execution("prepare_data", "failed", 1.5, exit_code=1, peak_mb=31.0, tail=TRACEBACK.replace("answers", key))
        for key in ("question", "answers")
    ]
    stages = tuple(StageRecord("debug", None, attempt, one) for attempt, one in enumerate(failures))
    return Experiment(made.loop, made.hypothesis, made.files, attempts=2, stages=stages), failures[-1]


def outcome(made: Experiment) -> Outcome:
    """What the run step hands to reflection."""
    decision = made.feedback.decision if made.feedback else "failed"
    return Outcome(made.validation, made.failure, decision, made.failure or "best posterior mean so far")
