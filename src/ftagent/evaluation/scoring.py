"""From a file of predictions and the items' answers to a core Score. In our process; never in a
workspace."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftagent.core.errors import ScoreUnavailable
from ftagent.core.statistics import score_of
from ftagent.core.types import Score
from ftagent.evaluation.benchmark import Benchmark, Grade, Item

MISSING = Grade(0.0, valid=False, category="missing")
MISTAKES = 5
MISTAKE_CHARACTERS = 300
MAX_BYTES = 2**30
"""A predictions file is untrusted: a larger one is not read."""


@dataclass(frozen=True)
class Graded:
    """All samples of one item with their grades; no outputs where the prediction is missing."""

    item: Item
    outputs: tuple[str, ...]
    grades: tuple[Grade, ...]

    @property
    def value(self) -> float:
        """Mean over samples."""
        return math.fsum(grade.value for grade in self.grades) / len(self.grades)


def read_predictions(path: Path, items: Sequence[Item] = ()) -> dict[str, tuple[str, ...]]:
    """Item id → outputs, from JSONL rows {"id", "outputs": [text, …]}.

    `output` with one text may stand for `outputs`, and `index` (from 0, into `items`) for `id`. Raises
    ScoreUnavailable, with file and line, for anything else.
    """
    predictions: dict[str, tuple[str, ...]] = {}
    for number, row in _rows(path):
        place = f"{path.name}:{number}"
        name = _name(row, items, place)
        outputs = row["outputs"] if "outputs" in row else [row.get("output")]
        if not isinstance(outputs, list) or not outputs or not all(isinstance(text, str) for text in outputs):
            raise ScoreUnavailable(f'{place}: "outputs" must be a list of texts, or "output" one text')
        if name in predictions:
            raise ScoreUnavailable(f"{place}: {name} is predicted twice")
        predictions[name] = tuple(outputs)
    return predictions


def grade_predictions(
    benchmark: Benchmark, items: Sequence[Item], predictions: Mapping[str, tuple[str, ...]]
) -> list[Graded]:
    """One record per item, in the order of `items`. Raises ScoreUnavailable when no prediction belongs to
    them."""
    if not items:
        raise ScoreUnavailable(f"{benchmark.name}: there are no items to score")
    if not any(item.id in predictions for item in items):
        raise ScoreUnavailable(f"none of the {len(predictions)} predictions belongs to an item of {benchmark.name}")
    graded = []
    for item in items:
        outputs = predictions.get(item.id, ())
        grades = tuple(benchmark.grade(item, output) for output in outputs) or (MISSING,)
        graded.append(Graded(item, outputs, grades))
    return graded


def summarise(benchmark: Benchmark, graded: Sequence[Graded], pass_k: Sequence[int] = ()) -> Score:
    """The Score of graded items: items are the unit, their samples are averaged before.

    `details`: answered_rate (items with a prediction), valid_rate (outputs with an answer), and pass@k for
    each of `pass_k` that there are samples for. `errors` counts items by their most frequent error
    category.
    """
    samples = max(len(record.outputs) for record in graded)
    total = math.fsum(len(record.grades) for record in graded)
    details = {
        "answered_rate": sum(bool(record.outputs) for record in graded) / len(graded),
        "valid_rate": sum(grade.valid for record in graded for grade in record.grades) / total,
    }
    for k in pass_k:
        if 1 <= k <= samples:
            details[f"pass@{k}"] = math.fsum(_pass_at(record, k) for record in graded) / len(graded)
    return score_of(
        benchmark.metric,
        {record.item.id: record.value for record in graded},
        direction=benchmark.direction,
        samples=max(1, samples),
        details=details,
        errors=_errors(graded),
    )


def score_file(
    benchmark: Benchmark, items: Sequence[Item], path: Path, pass_k: Sequence[int] = ()
) -> tuple[Score, list[Graded]]:
    """Read, grade and summarise. Raises ScoreUnavailable."""
    graded = grade_predictions(benchmark, items, read_predictions(path, items))
    return summarise(benchmark, graded, pass_k), graded


def mistakes(graded: Sequence[Graded], most: int = MISTAKES, longest: int = MISTAKE_CHARACTERS) -> tuple[str, ...]:
    """Excerpts of wrong outputs, `category: output`, from every category in turn, the most frequent first. Neither
    question nor expected answer is told; a long output keeps its beginning and its end."""
    found: dict[str, list[str]] = {}
    for record in graded:
        wrong = [(grade, text) for grade, text in zip(record.grades, record.outputs, strict=False) if grade.value < 1.0]
        if wrong:
            found.setdefault(wrong[0][0].category or "wrong", []).append(wrong[0][1])
    order = sorted(found, key=lambda category: (-len(found[category]), category))
    turns = [(number, category) for number in range(most) for category in order if number < len(found[category])]
    return tuple(_excerpt(category, found[category][number], longest) for number, category in turns[:most])


def details_lines(graded: Sequence[Graded]) -> Iterator[str]:
    """JSONL for `--details`: item, answer, outputs, and how each was graded. Holds answers: never for a
    workspace."""
    for record in graded:
        yield json.dumps(
            {
                "id": record.item.id,
                "question": record.item.question,
                "answer": record.item.answer,
                "outputs": list(record.outputs),
                "values": [grade.value for grade in record.grades],
                "valid": [grade.valid for grade in record.grades],
                "categories": [grade.category for grade in record.grades],
            },
            ensure_ascii=False,
        )


def _excerpt(category: str, output: str, longest: int) -> str:
    text = json.dumps(output, ensure_ascii=False)  # line breaks stay visible, and nothing else breaks a line
    room = longest - len(category) - 2
    if len(text) > room:
        half = (room - 3) // 2
        text = f"{text[:half]} … {text[-half:]}"
    return f"{category}: {text}"


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        if path.is_symlink() or not path.is_file():
            raise ScoreUnavailable(f"{path.name}: there is no such file")
        if path.stat().st_size > MAX_BYTES:
            raise ScoreUnavailable(f"{path.name}: larger than {MAX_BYTES // 2**20} MiB")
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _object(line, f"{path.name}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise ScoreUnavailable(f"{path.name}: cannot be read: {error}") from error


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ScoreUnavailable(f"{place}: not JSON") from error
    if not isinstance(row, dict):
        raise ScoreUnavailable(f"{place}: not a JSON object")
    return row


def _name(row: Mapping[str, Any], items: Sequence[Item], place: str) -> str:
    if "id" in row:
        return str(row["id"])
    index = row.get("index")
    if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(items):
        return items[index].id
    raise ScoreUnavailable(f'{place}: has no "id", and no "index" from 0 to {len(items) - 1}')


def _pass_at(record: Graded, k: int) -> float:
    """Unbiased pass@k (Chen et al. 2021): 1 - C(n-c, k) / C(n, k)."""
    n = len(record.grades)
    right = sum(grade.value >= 1.0 for grade in record.grades)
    k = min(k, n)
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def _errors(graded: Sequence[Graded]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for record in graded:
        wrong = Counter(grade.category or "wrong" for grade in record.grades if grade.value < 1.0)
        if wrong:
            counts[wrong.most_common(1)[0][0]] += 1
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
