"""What a model says of the labels of a pack."""

from __future__ import annotations

import inspect
from typing import Any

from ftagent.toolkit.batches import Pack, attention_mask


def summed_loss(model: Any, pack: Pack) -> Any:
    """Cross-entropy in nats, summed over the label tokens of `pack`, a scalar tensor."""
    return -target_logprobs(model, pack).sum()


def target_logprobs(model: Any, pack: Pack, temperature: float = 1.0) -> Any:
    """Log-probability in nats of each label token of `pack`, a float32 tensor of length L with gradient.

    `temperature` divides the logits: the probability with which sampling at that temperature draws the token.
    """
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
    return -torch.nn.functional.cross_entropy(logits.float() / temperature, targets, reduction="none")
