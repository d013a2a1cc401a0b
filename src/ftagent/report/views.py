"""What reading commands tell about a run, as JSON documents. CLI.md and cli/schemas fix their shapes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ftagent.core.errors import FtagentError
from ftagent.core.usage import usage

if TYPE_CHECKING:
    from ftagent.core.events import Limits
    from ftagent.core.run_folder import RunFolder
    from ftagent.core.state import State
    from ftagent.core.types import Experiment, Score
    from ftagent.core.usage import Usage


def summary(score: Score | None) -> dict[str, Any] | None:
    """The `S` of CLI.md."""
    return score.summary() if score else None


def status_of(folder: RunFolder, state: State) -> str:
    """`running`, how it finished, or `interrupted` where there is work left and nobody does it."""
    if folder.holder() is not None:
        return "running"
    return state.status or "interrupted"


def show_document(folder: RunFolder, state: State, request: dict[str, Any]) -> dict[str, Any]:
    """`show RUN --json`."""
    used = usage(state)
    document = {
        "run": str(folder.path),
        "options": request,
        "baseline": baseline(state),
        "experiments": [experiment(item, used) for item in state.experiments],
        "best": best(state),
        "budget": budget(state),
    }
    if used.total.calls:
        document["usage"] = {
            **asdict(used.total),
            "roles": {role: asdict(some) for role, some in used.by_role.items()},
            "models": {model: asdict(some) for model, some in used.by_model.items()},
            "taken_back_usd": used.taken_back_usd,
        }
    return document


def experiment(item: Experiment, used: Usage) -> dict[str, Any]:
    """One of the `experiments` of `show RUN --json`; `used` is the whole run's."""
    said = item.feedback
    mine = used.by_loop.get(item.loop)
    roles = used.by_loop_and_role.get(item.loop, {})
    usage_of = (
        {"usage": {**asdict(mine), "roles": {role: asdict(some) for role, some in roles.items()}}} if mine else {}
    )
    return {
        "loop": item.loop,
        "parent": item.hypothesis.parent,
        "hypothesis": asdict(item.hypothesis),
        "files": sorted(item.files),
        "stages": [
            {
                "name": record.execution.stage,
                "purpose": record.purpose,
                "end": record.execution.end,
                "seconds": record.execution.seconds,
                "peak_mb": record.execution.peak_mb,
            }
            for record in item.stages
        ],
        "validation": summary(item.validation),
        "feedback": {"reason": said.reason, "observations": list(said.observations), "next": said.next}
        if said
        else None,
        "decision": said.decision if said else None,
        "cost_usd": item.cost_usd,
        "seconds": item.seconds,
        **usage_of,
    }


def baseline(state: State) -> dict[str, Any]:
    """Scores of the untouched base model."""
    scores = state.baseline_scores
    return {"validation": summary(scores.get("validation")), "test": summary(scores.get("test"))}


def best(state: State) -> dict[str, Any] | None:
    """What the run selected; None until it has."""
    chosen = state.selected
    if chosen is None:
        return None
    scores = state.baseline_scores if chosen.loop is None else state.experiments[chosen.loop].scores
    return {
        "loop": chosen.loop,
        "validation": summary(scores.get("validation")),
        "test": summary(scores.get("test")),
        "verdict": chosen.verdict,
    }


def leader(state: State) -> Experiment | None:
    """The experiment with the best validation score so far, whether or not it beats the baseline."""
    scored = [item for item in state.experiments if item.validation]
    sign = -1 if state.created and state.created.direction == "minimize" else 1
    return max(scored, key=lambda item: sign * _value(item), default=None)


def _value(item: Experiment) -> float:
    assert item.validation is not None
    return item.validation.value


def budget(state: State) -> dict[str, Any]:
    """Spent and limit of each budget; `limit` is null where there is none."""
    limits: Limits = state.limits
    return {
        "loops": {"spent": len(state.experiments), "limit": limits.loop_n},
        "steps": {"spent": state.steps_done, "limit": None},
        "seconds": {"spent": round(state.elapsed, 3), "limit": limits.timeout},
        "usd": {"spent": state.cost_usd, "limit": limits.budget_usd},
    }


def run_row(folder: RunFolder) -> dict[str, Any]:
    """One of the `runs` of `runs --json`; a run that cannot be read has only its name and `problem`."""
    row: dict[str, Any] = dict.fromkeys(
        ("scenario", "metric", "loops", "baseline", "best", "verdict", "started_at", "seconds", "cost_usd", "problem")
    )
    row = {"run": str(folder.path), "name": folder.name, "status": "damaged"} | row
    try:
        state = folder.state()
    except FtagentError as error:
        return row | {"problem": str(error)}
    top = leader(state)
    return row | {
        "status": status_of(folder, state),
        "scenario": state.created.scenario if state.created else None,
        "metric": state.created.metric if state.created else None,
        "loops": len(state.experiments),
        "baseline": summary(state.baseline_scores.get("validation")),
        "best": summary(top.validation) if top else None,
        "verdict": state.selected.verdict if state.selected else None,
        "started_at": state.started_at or None,
        "seconds": round(state.elapsed, 3),
        "cost_usd": state.cost_usd,
    }
