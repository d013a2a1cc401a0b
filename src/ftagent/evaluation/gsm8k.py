"""GSM8K: grade-school mathematics word problems (Cobbe et al. 2021), hub openai/gsm8k, MIT."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from ftagent.core.context import HubAccess
from ftagent.core.errors import RequestError
from ftagent.core.types import Direction, Split
from ftagent.evaluation.benchmark import Grade, Item, TrainingRow, normalise, seeded_order, seeded_subset
from ftagent.evaluation.mirror import Row, load_rows
from ftagent.evaluation.overlap import OverlapGate
from ftagent.toolkit.verifiers.extract import MARKS
from ftagent.toolkit.verifiers.numeric import grade_number
from ftagent.toolkit.verifiers.worker import GradingWorker

HUB_ID = "openai/gsm8k"
VALIDATION_ITEMS = 500
SEED = "gsm8k"


class Gsm8k:
    """Validation is 500 seeded rows of the train split, training the others, test the hub's test split.

    `confirm` exists only where `--limit` leaves part of those 500 unused: it never costs training rows.
    """

    name = "gsm8k"
    title = "Grade-school mathematics word problems"
    licence = "MIT"
    metric = "accuracy"
    direction: Direction = "maximize"
    instruction = "Give the final answer as a number after ####."
    max_new_tokens = 320
    grading = f"Of an output, {MARKS}, else the last number. It is right when it is the same number."

    def __init__(self, hub: HubAccess, cache: Path) -> None:
        self._hub = hub
        self._cache = cache
        self._worker = GradingWorker()

    def items(self, split: Split, limit: int | None = None) -> tuple[Item, ...]:
        if split == "test":
            return seeded_subset(self._test, limit, SEED)
        steering = self._ordered_train[:VALIDATION_ITEMS]
        if split == "validation":
            return tuple(steering[:limit])
        return () if limit is None else tuple(steering[limit : 2 * limit])

    def training_rows(self, size: int | None = None) -> list[TrainingRow]:
        reserved = self._ordered_train[:VALIDATION_ITEMS]
        gate = OverlapGate([*reserved, *self._test], self.duplicate_keys)
        rows = []
        for item in self._ordered_train[VALIDATION_ITEMS:]:
            if gate.hit(item.question) is None:
                rows.append(TrainingRow(item.id, item.question, item.answer, item.meta["solution"]))
            if len(rows) == size:
                break
        return rows

    def grade(self, item: Item, output: str) -> Grade:
        return grade_number(output, item.answer, self._worker)

    def duplicate_keys(self, question: str) -> frozenset[str]:
        return frozenset((normalise(question),))

    @cached_property
    def _test(self) -> tuple[Item, ...]:
        return self._load("test")

    @cached_property
    def _ordered_train(self) -> list[Item]:
        return seeded_order(self._load("train"), SEED)

    def _load(self, split: str) -> tuple[Item, ...]:
        rows = load_rows(HUB_ID, "main", split, self._hub, self._cache)
        return tuple(_item(split, index, row) for index, row in enumerate(rows))


def _item(split: str, index: int, row: Row) -> Item:
    try:
        reasoning, final = str(row["answer"]).rsplit("####", 1)
        question = str(row["question"])
    except (KeyError, ValueError) as error:
        raise RequestError(f"{HUB_ID}: row {index} of {split} has no question, or no answer with ####") from error
    # Calculator marks like <<48/2=24>> are for tool use and are no part of what people read.
    solution = re.sub(r"<<[^>]*>>", "", reasoning).strip()
    answer = final.strip().replace(",", "")
    return Item(f"{split}-{index}", question, answer, {"solution": solution})
