"""Rows of STS-B: pairs of sentences with a gold similarity, from the hub, its mirror, or files of the user's own.

`dev` is what steers the loop, `test` is sealed. Pairs of either are taken out of the training rows.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, Literal

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import RequestError
from ftagent.evaluation.mirror import load_rows
from ftagent.evaluation.prepared import prepared_file
from ftagent.toolkit.data.splits import parse_split
from ftagent.toolkit.errors import ToolkitError

HUB_ID = "sentence-transformers/stsb"
HELD_OUT = 100
"""Training pairs, at most, that no training sees and every training is looked at with."""
Part = Literal["train", "validation", "test"]
NAMES: dict[Part, tuple[str, ...]] = {"train": ("train",), "validation": ("dev", "valid"), "test": ("test",)}
"""What a file's name has in it."""
ORIGINAL = ("genre", "filename", "year", "old_index", "score", "sentence1", "sentence2")
"""Columns of the original release, whose files have no header."""


@dataclass(frozen=True)
class Pair:
    """`score` is from 0 to 1."""

    id: str
    sentence1: str
    sentence2: str
    score: float

    @property
    def key(self) -> frozenset[str]:
        """The same for both orders."""
        return frozenset(" ".join(text.lower().split()) for text in (self.sentence1, self.sentence2))


class StsbData:
    """Of one run. Everything is read at its first use."""

    def __init__(self, context: ScenarioContext, train_split: str, path: str) -> None:
        """`path`: a folder with files of the user's own, else "". Raises RequestError for what is no slice of train."""
        self._context = context
        self._path = path
        try:
            self._split = parse_split(train_split)
        except ToolkitError as error:
            raise RequestError(f"STSB_TRAIN_SPLIT: {error}") from error
        if self._split.name != "train":
            raise RequestError(f"STSB_TRAIN_SPLIT: {train_split!r}: only train may be trained on, such as train[:100]")

    def items(self, part: Literal["validation", "test"]) -> tuple[Pair, ...]:
        """Pairs to predict: all, or a seeded subset of `--limit`."""
        pairs, limit = self._all[part], self._context.limit
        if limit is None or limit >= len(pairs):
            return tuple(pairs)
        chosen = Random(f"{self._context.seed}/{part}").sample(range(len(pairs)), limit)
        return tuple(pairs[index] for index in sorted(chosen))

    @cached_property
    def training(self) -> tuple[list[Pair], list[Pair]]:
        """Pairs to train on and pairs to look at; the latter are others of train, or a tenth where there are none."""
        rows = self._all["train"]
        measured = {pair.key for part in ("validation", "test") for pair in self._all[part]}
        start, end = self._split.bounds(len(rows))
        chosen = [pair for pair in rows[start:end] if pair.key not in measured]
        if len(chosen) < 2:
            raise RequestError(f"STSB_TRAIN_SPLIT: {len(chosen)} of {len(rows)} pairs are left to train on")
        others = [pair for pair in [*rows[:start], *rows[max(start, end) :]] if pair.key not in measured]
        random = Random("held out")
        if len(others) >= 10:
            return chosen, random.sample(others, min(HELD_OUT, len(others)))
        random.shuffle(chosen)
        count = min(HELD_OUT, len(chosen) // 10)
        return chosen[count:], chosen[:count]

    def files(self) -> tuple[Path, Path]:
        """Training and held-out rows as JSONL under FT_FILE_PATH, named by their content."""
        training, held_out = self.training
        return self._written(training), self._written(held_out)

    def _written(self, pairs: Sequence[Pair]) -> Path:
        text = as_lines({"sentence1": p.sentence1, "sentence2": p.sentence2, "score": p.score} for p in pairs)
        return prepared_file(self._context.files_path, "stsb", text)

    @cached_property
    def _all(self) -> dict[Part, list[Pair]]:
        parts: tuple[Part, ...] = ("train", "validation", "test")
        if self._path:
            return _scaled({part: _read_file(_find(Path(self._path).expanduser(), part), part) for part in parts})
        cache = self._context.files_path / "datasets" / "hub"
        found: dict[Part, list[Pair]] = {}
        for part in parts:
            rows = load_rows(HUB_ID, "default", part, self._context.hub, cache)
            found[part] = [_pair(row, part, index, f"{HUB_ID}: {part}") for index, row in enumerate(rows)]
        return found


def as_lines(rows: Iterable[dict[str, Any]]) -> str:
    """JSONL."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _find(folder: Path, part: Part) -> Path:
    if not folder.is_dir():
        raise RequestError(f"STSB_PATH {folder}: no such folder; it holds a train, a dev and a test file (CSV or TSV)")
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in (".csv", ".tsv") and any(name in path.stem.lower() for name in NAMES[part])
    ]
    if len(files) != 1:
        names = " or ".join(NAMES[part])
        found = f"{len(files)} files" if files else "no file"
        raise RequestError(f"STSB_PATH {folder}: {found} .csv or .tsv with {names} in the name; one is needed")
    return files[0]


def _read_file(path: Path, part: Part) -> list[Pair]:
    """With a header that names sentence1, sentence2 and score; without one, these three, or the original's columns."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read: {error}") from error
    first = text.partition("\n")[0]
    tabs = "\t" in first
    quoting: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {}
    lines = list(csv.reader(io.StringIO(text, newline=""), **quoting))
    if not lines:
        raise RequestError(f"{path}: is empty")
    names = [name.strip().lower() for name in lines[0]]
    header = "sentence1" in names
    if not header:
        names = list(ORIGINAL) if len(names) >= len(ORIGINAL) else ["sentence1", "sentence2", "score"]
    if missing := [name for name in ("sentence1", "sentence2", "score") if name not in names]:
        raise RequestError(f"{path}:1: has no column {missing[0]}; it has: {', '.join(names)}")
    pairs: list[Pair] = []
    for number, values in enumerate(lines[1:] if header else lines, 2 if header else 1):
        if not any(values):
            continue
        if len(values) < len(names):
            raise RequestError(f"{path}:{number}: {len(values)} columns, expected {len(names)}")
        row = dict(zip(names, values, strict=False))
        pairs.append(_pair(row, part, len(pairs), f"{path}:{number}", highest=5.0))
    return pairs


def _pair(row: dict[str, Any], part: Part, index: int, place: str, highest: float = 1.0) -> Pair:
    try:
        score = float(row["score"])
        one, other = str(row["sentence1"]), str(row["sentence2"])
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{place}: row {index} has no sentence1, sentence2 and a number as score") from error
    if not (math.isfinite(score) and 0 <= score <= highest):
        raise RequestError(f"{place}: row {index}: score {score:g} is not from 0 to {highest:g}")
    return Pair(f"{'dev' if part == 'validation' else part}-{index}", one, other, score)


def _scaled(parts: dict[Part, list[Pair]]) -> dict[Part, list[Pair]]:
    """Scores from 0 to 5, as the original has them, as scores from 0 to 1."""
    if max((pair.score for pairs in parts.values() for pair in pairs), default=0.0) <= 1.0:
        return parts
    return {part: [replace(pair, score=pair.score / 5) for pair in pairs] for part, pairs in parts.items()}
