"""The optimiser's loop over batches of an objective, with checkpoints and metrics."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ftagent.toolkit.checkpoint import Progress, save_checkpoint
from ftagent.toolkit.command import Emit
from ftagent.toolkit.config import TrainConfig

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"

Batch = Sequence[Any]
"""What one optimiser step sees: rows of SFT, pairs of DPO, problems of GRPO."""


class Objective(Protocol):
    """What a training minimises."""

    def backward(self, model: Any, batch: Batch, step: int) -> Mapping[str, float]:
        """Add the gradients of `batch` to `model`'s parameters. Returns measures of this step, "loss" among them.

        `step` counts from 0; random numbers depend on it and the seed alone, so that a resumed step repeats itself.
        """

    def tokens(self, batch: Batch) -> int:
        """Tokens of `batch` that the model sees, padding apart."""

    def held_out_loss(self, model: Any, batches: Sequence[Batch]) -> float:
        """The loss over all of `batches` together, with `model` in eval mode and without gradients; lower is better."""


@dataclass(frozen=True)
class Training:
    """Everything that does not change while it runs. `batches`: one an optimiser step."""

    model: Any
    optimizer: Any
    objective: Objective
    batches: Sequence[Batch]
    config: TrainConfig
    identity: str
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
    measured = list(progress.measures)
    started = time.monotonic() - progress.seconds
    _forget_lines_after(training, progress.step)
    with (config.save_model_path / METRICS).open("a", encoding="utf-8") as metrics:
        for index in range(progress.step, len(training.batches)):
            batch = training.batches[index]
            rate = learning_rate(index, len(training.batches), config)
            measured.append(take_step(training, batch, index, rate))
            progress.step = index + 1
            progress.tokens += training.objective.tokens(batch)
            progress.seconds = time.monotonic() - started
            last = progress.step == len(training.batches)
            if progress.step % config.log_steps == 0 or last:
                line = {
                    "step": progress.step, **_means(measured), "tokens": progress.tokens,
                    "learning_rate": rate, "seconds": round(progress.seconds, 3),
                }  # fmt: skip
                measured.clear()
                metrics.write(json.dumps(line) + "\n")
                metrics.flush()
                training.emit(line)
            progress.measures = tuple(measured)
            if config.checkpoint_steps and progress.step % config.checkpoint_steps == 0 and not last:
                save_checkpoint(
                    config.save_model_path / CHECKPOINTS,
                    training.identity,
                    progress,
                    training.model,
                    training.optimizer,
                )


def take_step(training: Training, batch: Batch, step: int, rate: float) -> dict[str, float]:
    """One update from `batch`; returns its measures."""
    import torch

    for group in training.optimizer.param_groups:
        group["lr"] = rate
    training.optimizer.zero_grad(set_to_none=True)
    measures = training.objective.backward(training.model, batch, step)
    if training.config.max_grad_norm:
        trained = [p for group in training.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, training.config.max_grad_norm)
    training.optimizer.step()
    return dict(measures)


def _means(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for measures in measured for name in measures)
    return {
        name: sum(values) / len(values)
        for name in names
        if (values := [measures[name] for measures in measured if name in measures])
    }


def _forget_lines_after(training: Training, step: int) -> None:
    """Steps after the checkpoint are taken again, so their lines go."""
    path = training.config.save_model_path / METRICS
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
