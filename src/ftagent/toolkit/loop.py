"""The optimiser's loop over steps of rows, with checkpoints and metrics."""

from __future__ import annotations

import inspect
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftagent.toolkit.batches import Pack, attention_mask, split_into_packs
from ftagent.toolkit.checkpoint import Progress, save_checkpoint
from ftagent.toolkit.command import Emit
from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.tokens import IGNORED, Row

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Training:
    """Everything that does not change while it runs. `packed`: rows of a step may share a sequence."""

    model: Any
    optimizer: Any
    steps: Sequence[Sequence[Row]]
    config: TrainConfig
    identity: str
    packed: bool
    emit: Emit


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The rate of step `step`, counted from 0, of `steps`: linear warm-up, then the schedule, to 0."""
    warmup = round(steps * config.warmup_ratio)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - warmup) / max(1, steps - warmup)
    share = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * share


def optimise(training: Training, progress: Progress) -> None:
    """Take the steps after `progress.step`, moving `progress`. Lines go to metrics.jsonl and `emit`."""
    config = training.config
    losses = list(progress.losses)
    started = time.monotonic() - progress.seconds
    _forget_lines_after(training, progress.step)
    with (config.output / METRICS).open("a", encoding="utf-8") as metrics:
        for index in range(progress.step, len(training.steps)):
            rate = learning_rate(index, len(training.steps), config)
            losses.append(take_step(training, training.steps[index], rate))
            progress.step = index + 1
            progress.tokens += sum(len(row.ids) for row in training.steps[index])
            progress.seconds = time.monotonic() - started
            last = progress.step == len(training.steps)
            if progress.step % config.log_steps == 0 or last:
                line = {
                    "step": progress.step, "loss": sum(losses) / len(losses), "tokens": progress.tokens,
                    "learning_rate": rate, "seconds": round(progress.seconds, 3),
                }  # fmt: skip
                losses.clear()
                metrics.write(json.dumps(line) + "\n")
                metrics.flush()
                training.emit(line)
            progress.losses = tuple(losses)
            if config.checkpoint_steps and progress.step % config.checkpoint_steps == 0 and not last:
                save_checkpoint(
                    config.output / CHECKPOINTS,
                    training.identity,
                    progress,
                    training.model,
                    training.optimizer,
                )


def take_step(training: Training, rows: Sequence[Row], rate: float) -> float:
    """One update from `rows`; returns their mean loss per label token in nats."""
    import torch

    config = training.config
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    training.optimizer.zero_grad(set_to_none=True)
    labels = sum(label != IGNORED for row in rows for label in row.labels[1:])
    total = 0.0
    for pack in split_into_packs(rows, config.pack_tokens if training.packed else 0):
        if pack.targets:
            loss = summed_loss(training.model, pack) / labels
            loss.backward()
            total += loss.item()
    if config.max_grad_norm:
        trained = [p for group in training.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
    training.optimizer.step()
    return total


def summed_loss(model: Any, pack: Pack) -> Any:
    """Cross-entropy summed over the label tokens of `pack`, a scalar tensor."""
    import torch

    device = model.device
    sources = torch.tensor(pack.sources, device=device)
    targets = torch.tensor(pack.targets, device=device)
    inputs = {
        "input_ids": torch.tensor([pack.ids], device=device),
        "position_ids": torch.tensor([pack.positions], device=device),
        # One row alone is plain causal attention, which needs no mask.
        "attention_mask": attention_mask(pack, model.dtype, device) if max(pack.segments) > 1 else None,
        "use_cache": False,
    }
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits = model(**inputs, logits_to_keep=sources).logits[0]
    else:
        logits = model(**inputs).logits[0, sources]
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")


def _forget_lines_after(training: Training, step: int) -> None:
    """Steps after the checkpoint are taken again, so their lines go."""
    path = training.config.output / METRICS
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
