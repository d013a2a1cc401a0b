"""What is said of a trial from its numbers alone, where a plan has constraints and objectives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ftagent.agents.reflection import reflect
from ftagent.core.search_plan import Constraint, Objective, SearchPlan
from ftagent.core.types import Brief, Direction, Execution, Experiment, Hypothesis, Outcome, StageRecord, Trace
from support.tuning import brief_of, scored

PLAN = SearchPlan("joint", constraints=(Constraint("seconds", 10.0), Constraint("secnds", 1.0)),
                  objectives=(Objective("size"),))  # fmt: skip


def told(brief: Brief, seconds: float, direction: Direction = "maximize") -> tuple[str, tuple[str, ...]]:
    """Advice and observations for a rejected trial that took `seconds`."""
    tuning = replace(brief_of(brief, PLAN), direction=direction)
    score = scored(tuning, 0.7)
    stage = StageRecord("full", None, 0, Execution("train", "ok", seconds))
    one = Experiment(0, Hypothesis("x", "y"), stages=(stage,), scores={"validation": score})
    trace = Trace(1, 0, direction, scored(tuning, 0.6), (one,))
    found = reflect(tuning, trace, one, Outcome(score, "", "reject", "for a reason"))
    return found.next, found.observations


@pytest.mark.parametrize(("direction", "verb"), [("maximize", "raise"), ("minimize", "lower")])
def test_advice_follows_the_direction(brief: Brief, direction: Direction, verb: str) -> None:
    assert told(brief, 5.0, direction)[0].startswith(f"this direction does not {verb} ")


def test_a_trial_over_a_constraint_is_not_said_to_score_low(brief: Brief) -> None:
    assert told(brief, 50.0)[0] == "other values: with these the constraints are not kept"


def test_what_a_trial_does_not_measure_is_told(brief: Brief) -> None:
    observations = told(brief, 5.0)[1]
    assert "no secnds was measured, so its constraint counts as kept" in observations
    assert "no size was measured, so this objective is unknown" in observations
    assert not any("no seconds" in line for line in observations)
