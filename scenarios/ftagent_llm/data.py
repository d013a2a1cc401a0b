"""What may be trained on: rows of the chosen datasets without benchmark items, in one file that stages
mount."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import RequestError, StageRefused
from ftagent.core.types import Split
from ftagent.evaluation.benchmark import Benchmark, Item, TrainingRow, messages_of
from ftagent.evaluation.expressions import expression_keys
from ftagent.evaluation.overlap import OverlapGate
from ftagent.evaluation.prepared import prepared_file
from ftagent.evaluation.registry import resolve_benchmark

FORMAT = 1
SPLITS: tuple[Split, ...] = ("validation", "confirm", "test")


class TrainingData:
    """Rows and the overlap gate of one run. Everything is made at its first use."""

    def __init__(self, benchmark: Benchmark, context: ScenarioContext, rows: int) -> None:
        """Raises RequestError for a dataset that is not known."""
        self._benchmark = benchmark
        self._context = context
        self._size = min(rows, context.upper_data_size or rows)
        self._names = context.datasets or (benchmark.name,)
        self._sources: list[Benchmark] = [
            benchmark if name == benchmark.name else resolve_benchmark(name, context.hub, context.files_path)
            for name in self._names
        ]

    def items(self, split: Split) -> tuple[Item, ...]:
        """Of the benchmark, as this run measures them."""
        return self._benchmark.items(split, self._context.limit)

    @cached_property
    def rows(self) -> list[TrainingRow]:
        """At most as many as asked for, equally from each dataset. Raises RequestError when there are
        none."""
        rows = [row for found in self.by_dataset.values() for row in found]
        if not rows:
            raise RequestError(f"{', '.join(self._names)}: no rows are left to train on")
        return rows

    @cached_property
    def by_dataset(self) -> dict[str, list[TrainingRow]]:
        """The rows of each dataset."""
        share = max(1, self._size // len(self._sources))
        rows: dict[str, list[TrainingRow]] = {}
        for source in self._sources:
            found = source.training_rows(share)
            if source is not self._benchmark:
                gate = OverlapGate(self._all_items, self._benchmark.duplicate_keys)
                found = [row for row in found if gate.hit(row.question, row.solution) is None]
            rows.setdefault(source.name, []).extend(found)
        return rows

    @cached_property
    def gate(self) -> OverlapGate:
        """Against every item that this run may measure. Questions that share a template share text with
        rows too."""
        shared = () if self.solved else [row.question for row in self.rows]
        return OverlapGate(self._all_items, self._benchmark.duplicate_keys, shared)

    def check(self, path: Path) -> None:
        """Raises StageRefused when the conversations in `path` hold benchmark items, naming the first
        lines."""
        if path.is_symlink() or not path.is_file():
            raise StageRefused(f"{path.name} is not a file")
        hits = self.gate.check_file(path, self._benchmark.instruction)
        if hits:
            first = "; ".join(str(hit) for hit in hits[:3])
            raise StageRefused(f"{path.name}: {len(hits)} rows are items of {self._benchmark.name} ({first})")

    @cached_property
    def solved(self) -> bool:
        """Whether the rows come with worked solutions."""
        return any(row.solution for row in self.rows)

    @cached_property
    def arithmetic(self) -> bool:
        """Whether every question holds an arithmetic expression and no solution comes with it."""
        return not self.solved and all(expression_keys(row.question) for row in self.rows[:100])

    @cached_property
    def _all_items(self) -> Sequence[Item]:
        return [item for split in SPLITS for item in self.items(split)]

    @cached_property
    def file(self) -> Path:
        """JSONL rows {"id", "prompt", "answer", "solution"} under files_path, named by their content."""
        lines = []
        for row in self.rows:
            (message,) = messages_of(self._benchmark, row.question)
            value = {"id": row.id, "prompt": message["content"], "answer": row.answer, "solution": row.solution}
            lines.append(json.dumps(value, ensure_ascii=False) + "\n")
        return prepared_file(self._context.files_path, "train", "".join(lines), str(FORMAT))
