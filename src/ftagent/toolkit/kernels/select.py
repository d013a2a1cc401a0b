"""Put the fast ways into a model, and take out what does not compute what the model computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

ATTRIBUTE = "ftagent_fast"
PROBE_TOKENS = 12


@dataclass(frozen=True)
class Fast:
    """What a model does the fast way beside its changed modules."""

    rows: bool
    """It takes `pack_layout` and attends by rows."""
    head: bool
    """Its logits are its output embedding applied to what its decoder returns."""


def speed_up(model: Any) -> Fast:
    """Make `model` compute the same faster. Its modules, parameters and files stay what they are.

    `model` is a causal language model of transformers, adapters in place. Chosen by what is there, never by timing.
    """
    import torch

    from ftagent.toolkit.kernels import attention, gated, linear, norm
    from ftagent.toolkit.kernels.memory import keep_freed_memory

    keep_freed_memory()
    training = model.training
    model.eval()
    with torch.no_grad():
        expected = _probe(model)
        before = model.config._attn_implementation
        changed: list[Any] = []
        if model.device.type == "cpu":
            changed += linear.use_fast_linears(model) if linear.available() else []
            changed += norm.use_fast_norms(model) + gated.use_fast_gates(model)
        if changed and not _close(_probe(model), expected):
            for module in changed:
                del module.forward
        rows = model.device.type == "cpu" and attention.use_row_attention(model)
        if rows and not _rows_agree(model, expected):
            rows = False
            model.set_attn_implementation(before)
        fast = Fast(rows, _head_agrees(model, expected))
    setattr(model.train(training), ATTRIBUTE, fast)
    return fast


def fast_ways(model: Any) -> Fast:
    """What `speed_up` chose for `model`; nothing where it was not called."""
    return getattr(model, ATTRIBUTE, Fast(False, False))


def leave_head(model: Any) -> None:
    """Let the head of `model` compute in the model's own forward pass alone: elsewhere it is not whole."""
    setattr(model, ATTRIBUTE, replace(fast_ways(model), head=False))


def _ids(model: Any) -> Any:
    import torch

    size = model.config.get_text_config().vocab_size
    return (torch.arange(PROBE_TOKENS, device=model.device) * 7919 % size)[None]


def _probe(model: Any) -> Any:
    return model(input_ids=_ids(model), use_cache=False).logits[0]


def _close(found: Any, expected: Any) -> bool:
    import torch

    tolerance = 1e-3 if expected.dtype == torch.float32 else 0.05
    scale = float(expected.float().std())
    return bool((found.float() - expected.float()).abs().max() <= tolerance * max(scale, 1e-6))


def _rows_agree(model: Any, expected: Any) -> bool:
    """Two rows with a common beginning, packed, give the logits of the probe; the second row is the probe."""
    import torch

    from ftagent.toolkit.batches import Pack
    from ftagent.toolkit.kernels.attention import pack_inputs

    ids = _ids(model)[0].tolist()
    other = [token + 1 if token else 2 for token in ids[3:9]]
    segments = [0] * 3 + [1] * len(other) + [2] * (len(ids) - 3)
    pack = Pack(ids[:3] + other + ids[3:], [0, 1, 2, *range(3, 9), *range(3, len(ids))], segments, [], [], [])
    try:
        found = model(**pack_inputs(model, pack, rows=True)).logits[0]
    except (TypeError, ValueError, RuntimeError):
        return False
    return _close(torch.cat([found[:3], found[9:]]), expected)


def _head_agrees(model: Any, expected: Any) -> bool:
    import torch

    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear):
        return False
    hidden = getattr(model.get_decoder()(input_ids=_ids(model), use_cache=False), "last_hidden_state", None)
    if hidden is None:
        return False
    hidden = hidden[0]
    return _close(torch.nn.functional.linear(hidden, head.weight, head.bias), expected)
