"""What a training has before its first step: rows as they were read, then an objective with its batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftagent.toolkit.files import fingerprint
from ftagent.toolkit.loop import Batch, Objective


@dataclass(frozen=True)
class Rows:
    """What was read: conversations of sft, preferences of dpo, problems of grpo. `held_out`: for validation.

    `source` and `held_out_source` name the files in messages.
    """

    train: Sequence[Any]
    held_out: Sequence[Any]
    source: str
    held_out_source: str

    def fingerprint(self) -> str:
        """Of their content, wherever they lie."""
        return fingerprint([[vars(row) for row in rows] for rows in (self.train, self.held_out)])


@dataclass(frozen=True)
class Prepared:
    """`batches`: one an optimiser step. `held_out`: batches for validation. `numbers`: what a summary says of them."""

    objective: Objective
    batches: Sequence[Batch]
    held_out: Sequence[Batch]
    numbers: Mapping[str, int]
