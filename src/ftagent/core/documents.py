"""What a run ends with, as JSON: the `finished` document of the command line's contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftagent.core.policy import ranking
from ftagent.core.run_folder import RunFolder
from ftagent.core.state import State
from ftagent.core.statistics import compare
from ftagent.core.types import Score, Split, Status, Verdict

SCHEMA_VERSION = 1


def finished(folder: RunFolder, state: State, status: Status, limit: str = "") -> dict[str, Any]:
    """The last line of `run --json`. `status` tells how this session ended."""
    created = state.created
    if created is None:
        raise ValueError("a run without its first event has no outcome")
    baseline = both(state.baseline_scores)
    loop, verdict = _best(state)
    best = both(state.experiments[loop].scores) if loop is not None else baseline
    # Only where there are any: `cost_usd` is then a lower bound.
    unpriced = {"unpriced_calls": state.unpriced_calls} if state.unpriced_calls else {}
    return {
        "event": "finished",
        "schema_version": SCHEMA_VERSION,
        "run": str(folder.path),
        "scenario": created.scenario,
        "status": status,
        "limit": limit or None,
        "loops": sum(state.complete(experiment.loop) for experiment in state.experiments),
        "metric": created.metric,
        "direction": created.direction,
        "baseline": baseline,
        "best": {"loop": loop, **best, "verdict": verdict},
        "test_openings": state.test_openings,
        "sealed": created.sealed,
        "cost_usd": state.cost_usd,
        **unpriced,
        "seconds": round(state.elapsed, 1),
    }


def _best(state: State) -> tuple[int | None, Verdict]:
    """What the finish selected; before it, the leader on validation, corrected for all that were scored."""
    if state.selected is not None and state.status is not None:
        return state.selected.loop, state.selected.verdict
    baseline, created = state.baseline_scores.get("validation"), state.created
    if baseline is None or created is None:
        return None, "tie"
    order = ranking(state.experiments, baseline, created.direction)
    score = None if order[0] is None else state.experiments[order[0]].validation
    if score is None:
        return None, "tie"
    tried = sum(experiment.validation is not None for experiment in state.experiments)
    return order[0], compare(baseline, score, comparisons=tried, seed=created.seed).verdict


def both(scores: Mapping[Split, Score]) -> dict[str, Any]:
    """Validation and test of a subject as `S`, null where not measured."""
    return {split: scores[split].summary() if split in scores else None for split in ("validation", "test")}
