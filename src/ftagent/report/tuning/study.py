"""A run whose loops are trials of one configuration, as its report and its Optuna study tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from ftagent.core import policy
from ftagent.core.errors import StoppedEarly
from ftagent.core.run_folder import RunFolder
from ftagent.core.search_plan import SearchPlan
from ftagent.core.state import State
from ftagent.core.types import Direction, Experiment, Parameter, Score, StageRecord
from ftagent.report.writing import record_of
from ftagent.search import pareto

End = Literal["scored", "stopped", "failed", "open"]


@dataclass(frozen=True)
class Tuning:
    """What run.json says of the search."""

    plan: SearchPlan
    space: tuple[Parameter, ...]
    baseline_params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """A trial. `loop` is None for the default configuration."""

    loop: int | None
    params: Mapping[str, Any]
    """All of them, the default's where the trial says nothing."""
    score: Score | None
    end: End
    measured: Mapping[str, float]
    """Further metrics by name; `seconds` and `peak_mb` of the full stages."""
    parent: int | None = None
    title: str = ""
    reason: str = ""
    advice: str = ""
    """What the agent said afterwards."""
    decision: str = ""
    failure: str = ""
    notes: tuple[str, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Study:
    """`rounds[0]` is the default configuration, if it was measured."""

    name: str
    tuning: Tuning
    state: State
    rounds: tuple[Round, ...]

    @property
    def direction(self) -> Direction:
        return self.state.created.direction if self.state.created else "maximize"

    @property
    def metric(self) -> str:
        return self.state.created.metric if self.state.created else "score"

    @property
    def default(self) -> dict[str, Any]:
        given = self.tuning.baseline_params
        return {p.name: given.get(p.name, p.default) for p in self.tuning.space}

    @property
    def names(self) -> list[str]:
        """Parameters that the rounds give values to; those of the space first."""
        return list(dict.fromkeys(name for one in self.rounds for name in one.params))

    def better(self, one: float, other: float) -> bool:
        return one > other if self.direction == "maximize" else one < other

    def best_before(self, position: int) -> Round | None:
        """The best score among the rounds before that position; one that exceeds a constraint is none."""
        best: Round | None = None
        for one in self.rounds[:position]:
            if one.score is None or self.exceeded(one):
                continue
            if best is None or best.score is None or self.better(one.score.value, best.score.value):
                best = one
        return best

    def chosen(self) -> Round | None:
        """What the run recommends; before it did, the best so far."""
        selected = self.state.selected
        if selected is None:
            return self.best_before(len(self.rounds))
        return next((one for one in self.rounds if one.loop == selected.loop), None)

    def exceeded(self, one: Round) -> list[str]:
        """Names of the constraints that a round does not keep; what was not measured exceeds nothing."""
        limits = self.tuning.plan.constraints
        return [c.name for c in limits if one.measured.get(c.name, c.at_most) > c.at_most]

    def objectives(self, one: Round) -> tuple[float, ...] | None:
        """The metric and then the plan's further objectives; None where one is unknown."""
        names = [objective.name for objective in self.tuning.plan.objectives]
        if one.score is None or any(name not in one.measured for name in names):
            return None
        return (one.score.value, *(one.measured[name] for name in names))

    def directions(self) -> list[Direction]:
        return [self.direction, *(objective.direction for objective in self.tuning.plan.objectives)]

    def front(self) -> list[Round]:
        """The rounds within the constraints that no other beats in every objective."""
        known = [(one, point) for one in self.rounds if (point := self.objectives(one)) and not self.exceeded(one)]
        return [known[index][0] for index in pareto.front([point for _, point in known], self.directions())]


def study_of(folder: RunFolder, state: State, name: str = "") -> Study | None:
    """None for a run without a plan."""
    told = record_of(folder).get("tuning")
    if not told:
        return None
    try:
        tuning = msgspec.convert(told, Tuning)
    except msgspec.ValidationError:
        return None
    return Study(name or folder.name, tuning, state, _rounds(tuning, state))


def controls_of(folder: RunFolder) -> list[Study]:
    """The control runs that there are, in a fixed order."""
    found = []
    for path in sorted(folder.controls.iterdir()) if folder.controls.is_dir() else ():
        run = RunFolder(Path(path))
        if run.journal.is_file() and (study := study_of(run, run.state(), path.name)):
            found.append(study)
    return found


def _rounds(tuning: Tuning, state: State) -> tuple[Round, ...]:
    default = {p.name: tuning.baseline_params.get(p.name, p.default) for p in tuning.space}
    rounds = []
    if score := state.baseline_scores.get("validation"):
        measured = policy.measured(score, state.baseline_stages)
        rounds.append(Round(None, default, score, "scored", measured, notes=_notes(score)))
    rounds += [_round(default, item) for item in state.experiments]
    return tuple(rounds)


def _round(default: Mapping[str, Any], item: Experiment) -> Round:
    idea, said, score = item.hypothesis, item.feedback, item.validation
    stopped = next((text for text in (_stop(record) for record in item.stages) if text), "")
    if score is not None:
        end: End = "scored"
    elif item.last_step == "feedback" or item.failure:
        end = "stopped" if stopped else "failed"
    else:
        end = "open"
    more = (said.reason, *said.observations, said.next) if said else ()
    return Round(
        item.loop,
        {**default, **idea.params},
        score,
        end,
        policy.measured(score, item.stages),
        idea.parent,
        idea.title,
        idea.reason,
        "; ".join(text.rstrip(".") for text in more if text),
        said.decision if said else "",
        item.failure or idea.abandoned,
        (*idea.notes, *([stopped] if stopped else []), *_notes(score)),
        item.curve,
    )


def _stop(record: StageRecord) -> str:
    detail = record.execution.detail
    return detail if detail.startswith(StoppedEarly.prefix) else ""


def _notes(score: Score | None) -> tuple[str, ...]:
    return score.notes if score is not None else ()
