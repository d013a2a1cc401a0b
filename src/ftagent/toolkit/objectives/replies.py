"""What objectives about whole replies share: log-probabilities row by row, and the model as it was before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ftagent.toolkit.batches import pack
from ftagent.toolkit.losses import target_logprobs
from ftagent.toolkit.tokens import Row


def chunks(rows: Sequence[Row], prompt: int, most_tokens: int) -> list[list[Row]]:
    """`rows`, whose first `prompt` tokens are the same, in groups that fit one pack of `most_tokens`; 0: one each."""
    groups: list[list[Row]] = []
    tokens = 0
    for row in rows:
        own = len(row.ids) - prompt
        if not groups or tokens + own > most_tokens:
            groups.append([])
            tokens = prompt
        groups[-1].append(row)
        tokens += own
    return groups


def logprobs_by_row(model: Any, rows: Sequence[Row], temperature: float = 1.0) -> list[Any]:
    """Log-probabilities in nats of the labels of each row, float32 tensors with gradient, from one forward pass."""
    import torch

    packed = pack(rows)
    found = target_logprobs(model, packed, temperature)
    owners = torch.tensor(packed.rows, device=found.device)
    return [found[owners == number] for number in range(len(rows))]


def common_length(rows: Sequence[Row]) -> int:
    """How many tokens `rows` have in common at their beginning."""
    least = min(len(row.ids) for row in rows)
    return next((i for i in range(least) if any(row.ids[i] != rows[0].ids[i] for row in rows)), least)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """`model` without dropout, then as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """`model` as it was before training, without gradients: its adapters are off. Without dropout."""
    import torch

    adapted = _adapted(model)
    # Switching adapters on marks all of them as trained, whatever they were before.
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    for module in adapted:
        module.enable_adapters(False)
    try:
        with evaluating(model), torch.no_grad():
            yield
    finally:
        for module in adapted:
            module.enable_adapters(True)
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in trained)


def _adapted(model: Any) -> list[Any]:
    # By an attribute of PEFT's layers: importing PEFT costs seconds, and full fine-tuning does without.
    return [module for module in model.modules() if hasattr(module, "adapter_layer_names")]
