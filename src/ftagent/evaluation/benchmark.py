"""What a benchmark is: items with answers, splits, a grading rule, a duplicate key, and rows to train
on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ftagent.core.types import Direction, Split
from ftagent.toolkit.verifiers.grade import Grade as Grade


@dataclass(frozen=True)
class Item:
    """A question and its answer. `question` is the user's turn; `meta` stays on our side, like the
    answer."""

    id: str
    question: str
    answer: str
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingRow:
    """A row that may be trained on. `solution` is worked out, or empty where the source has none."""

    id: str
    question: str
    answer: str
    solution: str = ""


class Benchmark(Protocol):
    """Deterministic: the same name and limit always give the same items, in the same order."""

    name: str
    title: str
    licence: str
    metric: str
    direction: Direction
    instruction: str
    """Follows each question: which form the answer should have. Empty where questions say so themselves."""
    max_new_tokens: int
    """Enough for an answer with its reasoning; the same for baseline and candidates."""

    grading: str
    """How an answer is found in an output and compared, in words for whoever writes training data."""

    def items(self, split: Split, limit: int | None = None) -> tuple[Item, ...]:
        """A seeded subset of at most `limit`. Empty where the benchmark has no such split."""
        ...

    def training_rows(self, size: int | None = None) -> list[TrainingRow]:
        """At most `size` rows (None: all, or the source's default where it is unbounded); no row shares a
        duplicate key with an item of any split."""
        ...

    def grade(self, item: Item, output: str) -> Grade:
        """By the published rule, on a leniently extracted answer. Never raises for what `output` is."""
        ...

    def duplicate_keys(self, question: str) -> frozenset[str]:
        """Two questions are the same item when their keys meet."""
        ...


class Identified(Protocol):
    """Anything with an id."""

    @property
    def id(self) -> str: ...


Row = TypeVar("Row", bound=Identified)


def seeded_order(rows: Iterable[Row], seed: str) -> list[Row]:
    """`rows` in an order that depends on `seed` and their ids alone, so that subsets of one seed nest."""
    return sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/{row.id}".encode()).digest())


def seeded_subset(rows: Sequence[Row], limit: int | None, seed: str) -> tuple[Row, ...]:
    """At most `limit` of `rows`, in their original order."""
    if limit is None or limit >= len(rows):
        return tuple(rows)
    chosen = {row.id for row in seeded_order(rows, seed)[:limit]}
    return tuple(row for row in rows if row.id in chosen)


def messages_of(benchmark: Benchmark, question: str) -> list[dict[str, str]]:
    """The conversation that asks `question`: one user turn, the same in training and prediction."""
    text = f"{question.rstrip()}\n\n{benchmark.instruction}" if benchmark.instruction else question
    return [{"role": "user", "content": text}]


def normalise(text: str) -> str:
    """Lower case, words and signs apart, single spaces."""
    return " ".join(re.findall(r"[^\W_]+(?:[.,][0-9]+)*|[^\w\s]|_", text.lower()))
