"""The optimiser's loop over batches of an objective, with validation, checkpoints and metrics."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ftagent.toolkit.checkpoint import Progress, Write, improves, prune_checkpoints, save_checkpoint, state_tensors
from ftagent.toolkit.command import Emit
from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.errors import Diverged, Interrupted, full_storage_is_told
from ftagent.toolkit.files import write_atomically
from ftagent.toolkit.optimizer import Optimizer
from ftagent.toolkit.share import ALONE, Share

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"

Batch = Sequence[Any]
"""What one optimiser step sees: rows of SFT, pairs of DPO, problems of GRPO."""


class Objective(Protocol):
    """What a training minimises."""

    def backward(self, model: Any, batch: Batch, step: int) -> Mapping[str, float]:
        """Add the gradients of `batch` to `model`'s parameters. Returns measures of this step, "loss" among them.

        `step` counts from 0; random numbers depend on it and the seed alone, so that a resumed step repeats itself.
        Torch's generators are seeded for the step. With several processes these are this one's shares: they sum to
        those of the step (see `Share`).
        """

    def tokens(self, batch: Batch) -> int:
        """Tokens of `batch` that the model sees, padding apart."""

    def held_out_loss(self, model: Any, batches: Sequence[Batch]) -> float:
        """The loss over all of `batches` together, with `model` in eval mode and without gradients; lower is better."""


@dataclass(frozen=True)
class Training:
    """Everything that does not change while it runs. `batches`: one an optimiser step.

    `held_out`: batches for validation. `writer`: gives what puts the adapter or weights into a checkpoint; the argument
    says whether this process will. `stopping`: whether the user wants it to end after this step. `autocast`: the
    context of every forward and backward pass.
    """

    model: Any
    optimizer: Optimizer
    objective: Objective
    batches: Sequence[Batch]
    config: TrainConfig
    identity: str
    emit: Emit
    held_out: Sequence[Batch] = ()
    writer: Callable[[bool], Write] | None = None
    share: Share = ALONE
    stopping: Callable[[], bool] = lambda: False
    autocast: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext

    @property
    def checkpoints(self) -> Path:
        """Their folder."""
        return self.config.save_model_path / CHECKPOINTS


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
    """Take the steps after `progress.step`, moving `progress`. Lines go to metrics.jsonl and `emit`.

    Ends early where validation says so. Raises Diverged, StorageFull, and Interrupted after `stopping`.
    """
    config = training.config
    measured = list(progress.measures)
    started = time.monotonic() - progress.seconds
    _forget_lines_after(training, progress.step)
    for index in range(progress.step, len(training.batches)):
        if _is_stale(progress, config):
            break
        batch = training.batches[index]
        rate = learning_rate(index, len(training.batches), config)
        measured.append(take_step(training, batch, index, rate))
        _check_finite("loss", measured[-1]["loss"], index + 1, rate)
        progress.step = index + 1
        progress.tokens += training.objective.tokens(batch)
        last = progress.step == len(training.batches)
        improved = _validate(training, progress) if _validation_is_due(training, progress.step) else None
        progress.seconds = time.monotonic() - started
        ended = last or _is_stale(progress, config)
        stopping = _may_stop(config, progress.step) and not ended and training.share.any(training.stopping())
        lines: list[dict[str, Any]] = []
        if progress.step % config.log_steps == 0 or ended:
            lines.append({
                "step": progress.step, **_means(measured), "tokens": progress.tokens,
                "learning_rate": rate, "seconds": round(progress.seconds, 3),
            })  # fmt: skip
            progress.loss = lines[0].get("loss")
            measured.clear()
        if improved is not None:
            lines.append({
                "step": progress.step, "validation_loss": progress.validation_loss, "best": improved,
                "tokens": progress.tokens, "seconds": round(progress.seconds, 3),
            })  # fmt: skip
        progress.measures = tuple(measured)
        _report(training, lines)
        if improved or _checkpoint_is_due(config, progress.step, ended, stopping):
            _checkpoint(training, progress)
        if stopping:
            raise Interrupted(_where_it_goes_on(config, progress, len(training.batches)))


def take_step(training: Training, batch: Batch, step: int, rate: float) -> dict[str, float]:
    """One update from `batch`; returns its measures."""
    training.optimizer.start(rate)
    seed_step(training.config.seed, step, training.share.rank)
    with training.autocast():
        measures = training.objective.backward(training.model, batch, step)
    norm = training.optimizer.step(training.config.max_grad_norm)
    if norm is not None:
        _check_finite("norm of the gradient", norm, step + 1, rate)
    return training.share.sum_measures(measures)


def _check_finite(what: str, value: float, step: int, rate: float) -> None:
    """All that follows would be lost time, and a checkpoint of it would take the place of a good one."""
    if not math.isfinite(value):
        raise Diverged(f"step {step}: the {what} is {value} at learning_rate {rate:.3g}; try a lower one")


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for `step`: what is random in it follows from these three alone."""
    import torch

    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:7], "big"))


def _validation_is_due(training: Training, step: int) -> bool:
    every = training.config.validation_steps
    return bool(training.held_out) and (step % every == 0 or step == len(training.batches))


def _validate(training: Training, progress: Progress) -> bool:
    """Measure the validation loss into `progress`; returns whether it is the best so far."""
    training.model.eval()
    with training.autocast():
        value = training.objective.held_out_loss(training.model, training.held_out)
    training.model.train()
    progress.validation_loss = value
    least = training.config.early_stopping_min_delta
    progress.stale = 0 if improves(value, progress.best_value, least) else progress.stale + 1
    if improves(value, progress.best_value):
        progress.best_step, progress.best_value = progress.step, value
        return True
    return False


def _is_stale(progress: Progress, config: TrainConfig) -> bool:
    return 0 < config.early_stopping_patience <= progress.stale


def _checkpoint_is_due(config: TrainConfig, step: int, ended: bool, stopping: bool) -> bool:
    if not config.checkpoint_steps:
        return False
    # When all is done the result itself is the last one, unless checkpoints are kept beside it.
    return stopping or (config.keep_checkpoints > 0 if ended else step % config.checkpoint_steps == 0)


def _may_stop(config: TrainConfig, step: int) -> bool:
    """Whether a training can go on from a checkpoint of `step`: replies of grpo, which several steps use, are not in
    it."""
    return config.objective != "grpo" or step % config.grpo_updates == 0


def _checkpoint(training: Training, progress: Progress) -> None:
    share = training.share
    if share.scaler is not None:
        progress.scale = share.scaler.get_scale()
    if share.rank and not share.sharded:
        return
    tensors = state_tensors(training.model, training.optimizer, share.rank == 0)
    write = None if training.writer is None else training.writer(share.rank == 0)
    if share.rank == 0:
        save_checkpoint(training.checkpoints, training.identity, progress, tensors, write)
        prune_checkpoints(training.checkpoints, max(1, training.config.keep_checkpoints), progress.best_step)


def _where_it_goes_on(config: TrainConfig, progress: Progress, steps: int) -> str:
    kept = progress.step if config.checkpoint_steps else progress.best_step
    stopped = f"stopped after step {progress.step} of {steps}"
    if kept is None:
        return f"{stopped}; nothing of it is kept, because checkpoint_steps is 0"
    return f"{stopped}; the same command goes on from step {kept}"


def _report(training: Training, lines: Sequence[dict[str, Any]]) -> None:
    if not lines or training.share.rank:
        return
    path = training.config.save_model_path / METRICS
    with (
        full_storage_is_told(str(path), lambda: "free some space, and the same command goes on"),
        path.open("a", encoding="utf-8") as metrics,
    ):
        metrics.write("".join(json.dumps(line) + "\n" for line in lines))
    for line in lines:
        training.emit(line)


def _means(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for measures in measured for name in measures)
    return {
        name: sum(values) / len(values)
        for name in names
        if (values := [measures[name] for measures in measured if name in measures])
    }


def _forget_lines_after(training: Training, step: int) -> None:
    """Steps after the checkpoint are taken again, so their lines go."""
    if training.share.rank:
        return
    path = training.config.save_model_path / METRICS
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    with full_storage_is_told(str(path), lambda: "every checkpoint is as it was"):
        write_atomically(path, "".join(line + "\n" for line in kept))
