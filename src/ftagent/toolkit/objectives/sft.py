"""Supervised fine-tuning: the mean cross-entropy of the label tokens of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftagent.toolkit.batches import Pack, split_into_packs
from ftagent.toolkit.losses import summed_loss
from ftagent.toolkit.share import ALONE, Share
from ftagent.toolkit.tokens import IGNORED, Row

FILLER = Pack(ids=[0, 0], positions=[0, 1], segments=[1, 1], sources=[0], targets=[0], rows=[0])
"""The smallest pack, for a process that only helps another with its pass."""


@dataclass(frozen=True)
class SupervisedObjective:
    """Over batches of `Row`. `pack_tokens` bounds one forward pass; 0 gives each row its own."""

    pack_tokens: int
    share: Share = ALONE

    def backward(self, model: Any, batch: Sequence[Row], step: int) -> dict[str, float]:
        """`loss` is the mean per label token in nats."""
        labels = sum(label != IGNORED for row in batch for label in row.labels[1:])
        total = 0.0
        packs = [pack for pack in split_into_packs(self.share.of(batch), self.pack_tokens) if pack.targets]
        for pack, counts in self.share.even(packs, FILLER):
            loss = summed_loss(model, pack) * (counts / labels)
            self.share.backward(model, loss)
            total += loss.item()
        return {"loss": total}

    def tokens(self, batch: Sequence[Row]) -> int:
        return sum(len(row.ids) for row in batch)

    def held_out_loss(self, model: Any, batches: Sequence[Sequence[Row]]) -> float:
        """The mean per label token in nats, over all of them."""
        import torch

        total, labels = 0.0, 0
        with torch.no_grad():
            for batch in batches:
                for pack in split_into_packs(batch, self.pack_tokens):
                    if pack.targets:
                        total += summed_loss(model, pack).item()
                        labels += len(pack.targets)
        return total / labels
