"""Procedural benchmarks: every task of reasoning-gym (Apache-2.0) as `rg:NAME?key=value&…`.

Each split draws from its own seed, and each duplicate key belongs to exactly one split by its hash, so
splits are disjoint whatever their sizes are, a smaller limit is a prefix of a larger one, and training
keeps examples of every kind even where the space is small (one-digit sums: 155 keys).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ftagent.core.errors import RequestError
from ftagent.core.types import Direction, Split
from ftagent.evaluation.benchmark import Grade, Item, TrainingRow, normalise
from ftagent.evaluation.drawing import DrawingWorker, reproducible
from ftagent.evaluation.expressions import expression_keys
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.verifiers.extract import MARKS, numbers_in
from ftagent.toolkit.verifiers.procedural import TaskGrader
from ftagent.toolkit.verifiers.tasks import build_dataset, canonical_name, split_name
from ftagent.toolkit.verifiers.worker import GradingWorker

SEEDS = {"train": 0x0A000000, "validation": 0x0B000000, "test": 0x0C000000, "confirm": 0x0D000000}
SHARES = {"train": 0.40, "validation": 0.20, "test": 0.25, "confirm": 0.15}
SIZES: Mapping[Split, int] = {"validation": 200, "confirm": 200, "test": 300}
TRAINING_ROWS = 2000
SMALLEST = 20
"""Fewer distinct items than this in a split are no measurement."""
PATIENCE = 400
"""Draws in a row without a new item after which a split counts as exhausted."""

BLOCK = 2000
"""Draws per dataset object: some tasks prepare all their entries when they are built."""

ARITHMETIC = {"basic_arithmetic", "chain_sum", "decimal_arithmetic", "decimal_chain_sum", "products"}
NUMBERS = {"gcd", "lcm"}
WORDS = {
    "complex_arithmetic", "countdown", "group_anagrams", "leg_counting", "number_sorting", "puzzle24",
    "simple_geometry", "word_sorting",
}  # fmt: skip
"""Tasks whose operands commute: as an expression, as a multiset of numbers, as a multiset of words."""
EXAMPLES = ("possible_answer", "example_answer", "example_correct_answer")
"""Where tasks with many right answers keep one."""


@dataclass
class _Stream:
    """Accepted entries of one split so far, and where its draws go on."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    seen: set[Any] = field(default_factory=set)
    position: int = 0
    exhausted: bool = False


class ProceduralBenchmark:
    """See the module. Items are graded by the task's own `score_answer`; 1 counts as right."""

    licence = "Apache-2.0"
    metric = "accuracy"
    direction: Direction = "maximize"
    instruction = ""
    max_new_tokens = 64
    grading = (
        f"Of an output, {MARKS}. Where the answer is a number, the last number counts if nothing is marked; otherwise "
        "the whole output and its last line are tried too. The task's own rule decides whether it is right."
    )

    def __init__(self, name: str) -> None:
        """Raises RequestError for an unknown task, key or value."""
        with requests():
            self.name = canonical_name(name)
            self.task = split_name(name)[0]
            build_dataset(self.name, SEEDS["train"])
        self.title = f"reasoning-gym: {self.task.replace('_', ' ')}"
        self._grader = TaskGrader(self.name, GradingWorker())
        self._drawing = None if reproducible() else DrawingWorker(self.name)
        self._streams: dict[str, _Stream] = {}

    def items(self, split: Split, limit: int | None = None) -> tuple[Item, ...]:
        """Raises RequestError where the task has too few distinct items to measure anything."""
        wanted = SIZES[split] if limit is None else limit
        entries = self.draw(split, wanted)
        if len(entries) < min(wanted, SMALLEST):
            raise RequestError(
                f"{self.name}: only {len(entries)} distinct items for {split}, {wanted} asked: "
                f"the task's space is too small; widen its settings"
                + (f" or use --limit {len(entries)}" if entries else "")
            )
        return tuple(
            Item(f"{split}-{index}", entry["question"], _reference(entry), entry) for index, entry in enumerate(entries)
        )

    def training_rows(self, size: int | None = None) -> list[TrainingRow]:
        """Raises RequestError for a task that has no reference answers."""
        entries = self.draw("train", TRAINING_ROWS if size is None else size)
        rows = [
            TrainingRow(f"train-{index}", entry["question"], _reference(entry))
            for index, entry in enumerate(entries)
            if _reference(entry)
        ]
        if not rows:
            raise RequestError(
                f"{self.name}: {self.task} has no reference answers, so there is nothing to train on; "
                "it can only be evaluated"
            )
        return rows

    def grade(self, item: Item, output: str) -> Grade:
        return self._grader.grade(output, item.answer, item.meta)

    def duplicate_keys(self, question: str) -> frozenset[str]:
        if self.task in ARITHMETIC:
            keys = expression_keys(question)
            if keys:
                return keys
        if self.task in NUMBERS:
            return frozenset((" ".join(sorted(numbers_in(question))),))
        text = normalise(question)
        return frozenset((" ".join(sorted(text.split())) if self.task in WORDS else text,))

    def draw(self, split: str, wanted: int) -> list[dict[str, Any]]:
        """The first `wanted` entries of `split`, fewer where there are no more; the same in every process."""
        stream = self._streams.setdefault(split, _Stream())
        if self._drawing is not None:
            if len(stream.entries) < wanted and not stream.exhausted:
                stream.entries = self._drawing.draw(split, wanted)
                stream.exhausted = len(stream.entries) < wanted
            return stream.entries[:wanted]
        if len(stream.entries) < wanted and not stream.exhausted:
            idle = 0
            for entry in self._entries(split, stream):
                idle = 0 if self._accept(split, stream, entry) else idle + 1
                stream.exhausted = idle >= PATIENCE
                if stream.exhausted or len(stream.entries) >= wanted:
                    break
        return stream.entries[:wanted]

    def _entries(self, split: str, stream: _Stream) -> Iterator[dict[str, Any]]:
        dataset = None
        while True:
            block, index = divmod(stream.position, BLOCK)
            if dataset is None or index == 0:
                with requests():
                    dataset = build_dataset(self.name, SEEDS[split] + block * BLOCK, BLOCK)
            # Some tasks draw from the global generator; it is lent to them seeded, and given back.
            state = random.getstate()
            random.seed(SEEDS[split] + stream.position)
            try:
                entry = dataset[index]
            finally:
                random.setstate(state)
            stream.position += 1
            yield entry

    def _accept(self, split: str, stream: _Stream, entry: dict[str, Any]) -> bool:
        keys = self.duplicate_keys(entry["question"])
        # In training, 2 + 3 beside 3 + 2 is welcome; as two items of a split it would be one counted twice.
        identity = entry["question"] if split == "train" else keys
        if identity in stream.seen or any(split_of(key) != split for key in keys):
            return False
        stream.seen.add(identity)
        stream.entries.append(entry)
        return True


@contextlib.contextmanager
def requests() -> Iterator[None]:
    """What the toolkit refuses is what was asked of us: its ToolkitError becomes a RequestError."""
    try:
        yield
    except ToolkitError as error:
        raise RequestError(str(error)) from error


def split_of(key: str) -> str:
    """The split that a duplicate key belongs to."""
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    for split, part in SHARES.items():
        share -= part
        if share < 0:
            return split
    return "train"


def _reference(entry: Mapping[str, Any]) -> str:
    """The answer as text; empty where the task gives none."""
    answer = entry["answer"]
    if answer is None:
        answer = next((entry["metadata"][key] for key in EXAMPLES if entry["metadata"].get(key)), "")
    return answer if isinstance(answer, str) else json.dumps(answer)
