"""The overlap gate: training data is checked against benchmark items before a model sees it.

A row hits an item when the benchmark's own duplicate key, the exact text or the normalised text of a user
turn is that of the item, or when any turn holds 13 consecutive words of it (Brown et al. 2020, appendix C)
once text that items share - templates, instructions - is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftagent.evaluation.benchmark import Item, normalise

NGRAM = 13
MIN_DISTINCT = 6
"""Distinct words that an n-gram needs to identify an item: `0 0 0 0 1 …` of a grid does not."""


@dataclass(frozen=True)
class Hit:
    """A training row that is a benchmark item. `line` counts from 1; 0 where there is no file."""

    item: str
    kind: str
    line: int = 0

    def __str__(self) -> str:
        return f"line {self.line}: {self.kind} of item {self.item}"


class OverlapGate:
    """Holds the questions of all items; `shared` is further text that does not identify one (templates)."""

    def __init__(
        self,
        items: Sequence[Item],
        duplicate_keys: Callable[[str], frozenset[str]],
        shared: Iterable[str] = (),
    ) -> None:
        self._duplicate_keys = duplicate_keys
        self._keys: dict[str, str] = {}
        self._exact: dict[str, str] = {}
        self._normalised: dict[str, str] = {}
        self._ngrams: dict[str, str] = {}
        counts: Counter[str] = Counter()
        for text in shared:
            counts.update(dict.fromkeys(_ngrams(text), 2))
        for item in items:
            self._exact[item.question.strip()] = item.id
            self._normalised[normalise(item.question)] = item.id
            for key in duplicate_keys(item.question):
                self._keys[key] = item.id
            grams = set(_ngrams(item.question))
            counts.update(grams)
            for gram in grams:
                self._ngrams[gram] = item.id
        for gram, count in counts.items():
            if count > 1:
                self._ngrams.pop(gram, None)

    def hit(self, question: str, *others: str) -> Hit | None:
        """The first hit of one row: `question` is what the user asks, `others` its remaining text."""
        for key in sorted(self._duplicate_keys(question)):
            if key in self._keys:
                return Hit(self._keys[key], "duplicate key")
        if question.strip() in self._exact:
            return Hit(self._exact[question.strip()], "exact text")
        if normalise(question) in self._normalised:
            return Hit(self._normalised[normalise(question)], "normalised text")
        for text in (question, *others):
            for gram in _ngrams(text):
                if gram in self._ngrams:
                    return Hit(self._ngrams[gram], f"{NGRAM} consecutive words")
        return None

    def check_file(self, path: Path, suffix: str = "") -> list[Hit]:
        """Hits of a JSONL file of conversation rows. `suffix` is an instruction that follows each question.

        A line that is no conversation is checked as one text: what cannot be read cannot hide.
        """
        hits = []
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                hit = self._check_line(line, suffix) if line.strip() else None
                if hit is not None:
                    hits.append(Hit(hit.item, hit.kind, number))
        return hits

    def _check_line(self, line: str, suffix: str) -> Hit | None:
        asked, others = _turns(line)
        for text in asked:
            hit = self.hit(text.strip().removesuffix(suffix).rstrip() if suffix else text)
            if hit is not None:
                return hit
        return next(
            (
                Hit(self._ngrams[gram], f"{NGRAM} consecutive words")
                for text in others
                for gram in _ngrams(text)
                if gram in self._ngrams
            ),
            None,
        )


def _turns(line: str) -> tuple[list[str], list[str]]:
    """Texts of the user's turns, and all other texts, of one JSONL line."""
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        return [line], []
    asked: list[str] = []
    others: list[str] = []
    messages = row.get("messages") if isinstance(row, Mapping) else None
    if not isinstance(messages, list):
        return list(_strings(row)), []
    for message in messages:
        role = message.get("role") if isinstance(message, Mapping) else None
        (others if role == "assistant" else asked).extend(
            _strings(message.get("content") if isinstance(message, Mapping) else message)
        )
    return asked, others


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _ngrams(text: str) -> Iterator[str]:
    words = normalise(text).split()
    for start in range(len(words) - NGRAM + 1):
        window = words[start : start + NGRAM]
        if len(set(window)) >= MIN_DISTINCT:
            yield " ".join(window)
