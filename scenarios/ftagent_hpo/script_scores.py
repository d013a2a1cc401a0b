"""From what a script wrote to a score, or to one line that says why there is none."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftagent.core.errors import ScoreUnavailable
from ftagent.core.statistics import repeated_score, trained_score
from ftagent.core.types import Direction, Score
from ftagent_hpo.trials import adjustments, notes_of

_TOLERANCE = 1e-3
"""Between a metric, which scripts round, and the mean of its outcomes."""


def score_rows(path: Path, metric: str, direction: Direction, groups: Sequence[str], script: str) -> Score:
    """The Score of rows of `toolkit.trial_metrics`; ids are GROUP/ITEM, or GROUP/runN without outcomes.

    Raises ScoreUnavailable.
    """
    rows = _read(path)
    outcomes: dict[str, float] = {}
    kept: list[Mapping[str, Any]] = []
    for group in groups:
        runs = [row for row in rows if str(row.get("id", "")).startswith(f"{group}/")]
        if not runs:
            raise ScoreUnavailable(f"{script}: nothing was measured for {group}")
        values = _values(runs, metric, script)
        outcomes |= _outcomes(runs, group, metric, values)
        kept += runs
    # Without items to compare on, a training is the unit, and its noise shows only between seeds.
    scored = trained_score if all(row.get("outcomes") is None for row in kept) else repeated_score
    score = scored(metric, outcomes, direction=direction, details=_details(kept))
    if scored is repeated_score:
        score = replace(score, samples=len(kept))
    changes: dict[str, tuple[float, float]] = {}
    for row in kept:
        changes |= adjustments(row.get("adjusted") or {})
    used = {name: after for name, (_, after) in changes.items()}
    return replace(score, details={**score.details, **used}, notes=notes_of(changes), adjusted=used)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ScoreUnavailable(f"{path.name}: cannot be read: {error}") from error
    return [row for row in rows if isinstance(row, dict)]


def _values(runs: Sequence[Mapping[str, Any]], metric: str, script: str) -> list[float]:
    """The metric of each training of a group."""
    values, faults = [], []
    for number, row in enumerate(runs):
        why = _fault(row, metric, script)
        if why:
            faults.append((number, why))
        else:
            values.append(float(row["value"]))
    if faults and len(runs) > 1:
        number, why = faults[0]
        raise ScoreUnavailable(f"{metric} is missing in {len(faults)} of {len(runs)} seeds: seed {number}: {why}")
    if faults:
        raise ScoreUnavailable(faults[0][1])
    return values


def _fault(row: Mapping[str, Any], metric: str, script: str) -> str:
    """Why a training has no value of the metric; empty where it has."""
    files = ", ".join(row.get("files", ()))
    if not row.get("present"):
        if not files:
            return f"{script} ended well and wrote neither metrics.json nor metrics.jsonl with {metric!r}"
        known = ", ".join(list(row.get("details", {}))[:8]) or "no number"
        return f"{script} wrote no {metric!r}: {files} has {known}"
    value = row.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{row.get('source')}: {metric} is {json.dumps(value)[:60]}, which is no number"
    if not math.isfinite(value):
        return f"{row.get('source')}: {metric} is {value}, which is no finite number"
    return ""


def _outcomes(runs: Sequence[Mapping[str, Any]], group: str, metric: str, values: Sequence[float]) -> dict[str, float]:
    """Per item, averaged over the trainings of a group; per training where the script tells of no items."""
    given = [row.get("outcomes") for row in runs]
    if all(one is None for one in given):
        return {f"{group}/run{number}": value for number, value in enumerate(values)}
    items: list[dict[str, float]] = []
    for number, (one, value) in enumerate(zip(given, values, strict=True)):
        where = f"outcomes of seed {number}" if len(runs) > 1 else "outcomes"
        if not isinstance(one, dict) or not one:
            raise ScoreUnavailable(f"{where}: must be an object of item ids with a number each")
        items.append(_numbers(one, where))
        mean = math.fsum(items[-1].values()) / len(one)
        if abs(mean - value) > _TOLERANCE * max(1.0, abs(value)):
            raise ScoreUnavailable(f"{where}: their mean is {mean:.6g} and {metric} is {value:.6g}; they must agree")
        if one.keys() != items[0].keys():
            raise ScoreUnavailable(f"{where}: not the items of the first seed")
    return {f"{group}/{item}": math.fsum(one[item] for one in items) / len(items) for item in items[0]}


def _numbers(outcomes: Mapping[str, Any], where: str) -> dict[str, float]:
    for item, value in outcomes.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ScoreUnavailable(f"{where}: item {item[:60]!r} is {json.dumps(value)[:60]}, which is no number")
    return {item: float(value) for item, value in outcomes.items()}


def _details(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Further metrics that every training has, averaged."""
    found = [row.get("details") or {} for row in rows]
    names = [name for name in found[0] if all(name in one for one in found)]
    return {name: math.fsum(one[name] for one in found) / len(found) for name in names}
