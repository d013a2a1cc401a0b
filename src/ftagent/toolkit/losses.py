"""What a model says of the labels of a pack."""

from __future__ import annotations

import inspect
from typing import Any

from ftagent.toolkit.batches import Pack
from ftagent.toolkit.kernels.attention import pack_inputs
from ftagent.toolkit.kernels.head import head_logprobs
from ftagent.toolkit.kernels.select import fast_ways


def summed_loss(model: Any, pack: Pack) -> Any:
    """Cross-entropy in nats, summed over the label tokens of `pack`, a scalar tensor."""
    return -target_logprobs(model, pack).sum()


def target_logprobs(model: Any, pack: Pack, temperature: float = 1.0) -> Any:
    """Log-probability in nats of each label token of `pack`, a float32 tensor of length L with gradient.

    `temperature` divides the logits: the probability with which sampling at that temperature draws the token.
    """
    import torch

    fast = fast_ways(model)
    sources = torch.tensor(pack.sources, device=model.device)
    targets = torch.tensor(pack.targets, device=model.device)
    inputs = pack_inputs(model, pack, fast.rows)
    if fast.head:
        head = model.get_output_embeddings()
        hidden = model.get_decoder()(**inputs).last_hidden_state[0]
        bias = head.bias if head.bias is None else head.bias / temperature
        return head_logprobs(hidden.index_select(0, sources) / temperature, head.weight, bias, targets)
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits = model(**inputs, logits_to_keep=sources).logits[0]
    else:
        logits = model(**inputs).logits[0, sources]
    return -torch.nn.functional.cross_entropy(logits.float() / temperature, targets, reduction="none")
