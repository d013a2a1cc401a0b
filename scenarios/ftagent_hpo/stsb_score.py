"""From predicted similarities to a Score, with the gold values, in our process. Predictions are untrusted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftagent.core.errors import ScoreUnavailable
from ftagent.core.statistics import spearman_score
from ftagent.core.types import Score
from ftagent_hpo.stsb_data import Pair

METRIC = "spearman"
MAX_BYTES = 2**28
LATENCY, SIZE = "latency_ms", "model_mb"


def score_predictions(path: Path, pairs: Sequence[Pair], groups: Sequence[str]) -> Score:
    """Rank correlation of the similarities with the gold values, each pair in each of `groups`.

    `details` has pearson, latency_ms (of one pair) and model_mb. Raises ScoreUnavailable for a prediction that is
    missing, twice, or no number.
    """
    gold = {f"{group}/{pair.id}": pair for group in groups for pair in pairs}
    predictions: dict[str, float] = {}
    told: list[dict[str, Any]] = []
    for number, row in _rows(path):
        name, value = row.get("id"), row.get("similarity")
        if name in {f"{group}/" for group in groups}:
            told.append(row)
            continue
        if name not in gold:
            raise ScoreUnavailable(f"{path.name}:{number}: {str(name)[:40]!r} is no pair that was asked for")
        if name in predictions:
            raise ScoreUnavailable(f"{path.name}:{number}: {name} is predicted twice")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ScoreUnavailable(f"{path.name}:{number}: the similarity of {name} is {value!r}, which is no number")
        predictions[str(name)] = float(value)
    missing = [name for name in gold if name not in predictions]
    if missing:
        raise ScoreUnavailable(f"{len(missing)} of {len(gold)} pairs have no prediction, the first is {missing[0]}")
    references = {name: pair.score for name, pair in gold.items()}
    details = {"pearson": _pearson(predictions, references)} | _details(told)
    try:
        score = spearman_score(METRIC, predictions, references, details=details)
    except ValueError as error:
        raise ScoreUnavailable(f"{METRIC}: {error}") from error
    return replace(score, notes=tuple(dict.fromkeys(_notes(told))))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.is_symlink() or not path.is_file():
        raise ScoreUnavailable("the training left no predictions.jsonl")
    if path.stat().st_size > MAX_BYTES:
        raise ScoreUnavailable(f"{path.name}: larger than {MAX_BYTES >> 20} MiB")
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ScoreUnavailable(f"{path.name}:{number}: not JSON") from error
            if not isinstance(row, dict):
                raise ScoreUnavailable(f"{path.name}:{number}: not a JSON object")
            yield number, row


def _details(told: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found = {}
    for key in (LATENCY, SIZE):
        values = [float(row[key]) for row in told if isinstance(row.get(key), int | float) and math.isfinite(row[key])]
        if values:
            found[key] = math.fsum(values) / len(values)
    return found


def _notes(told: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in told:
        batch, at_once = row.get("batch_size"), row.get("at_once")
        if isinstance(batch, int) and isinstance(at_once, int) and at_once < batch:
            yield f"out of memory: {at_once} pairs at once instead of {batch}; an update still saw {batch}"


def _pearson(predictions: Mapping[str, float], references: Mapping[str, float]) -> float:
    x, y = [predictions[name] for name in references], list(references.values())
    middle = (math.fsum(x) / len(x), math.fsum(y) / len(y))
    product = math.fsum((a - middle[0]) * (b - middle[1]) for a, b in zip(x, y, strict=True))
    spread = math.fsum((a - middle[0]) ** 2 for a in x) * math.fsum((b - middle[1]) ** 2 for b in y)
    return product / math.sqrt(spread) if spread else 0.0
