"""Attention over a pack, row by row.

A dense mask over a pack of T tokens costs T², although rows do not see each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftagent.toolkit.batches import Pack, attention_mask

NAME = "ftagent_rows"
"""Under which transformers' AttentionInterface knows `attend`."""


@dataclass(frozen=True)
class Layout:
    """Lengths in tokens: `shared`, the common beginning that every row attends to, then each row."""

    shared: int
    rows: tuple[int, ...]


def layout(segments: Sequence[int]) -> Layout:
    """The layout of `Pack.segments`."""
    shared = sum(number == 0 for number in segments)
    rows = [0] * max(segments)
    for number in segments:
        if number:
            rows[number - 1] += 1
    return Layout(shared, tuple(rows))


def pack_inputs(model: Any, pack: Pack, rows: bool) -> dict[str, Any]:
    """Arguments of a forward pass over `pack`; with `rows` the model attends by rows, else under a dense mask."""
    import torch

    device = model.device
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([pack.ids], device=device),
        "position_ids": torch.tensor([pack.positions], device=device),
        "use_cache": False,
    }
    if rows:
        # A mask of four dimensions is taken as it is, so that none is made; attention by rows does not look at it.
        unused = torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=device)
        return {**inputs, "attention_mask": unused, "pack_layout": layout(pack.segments)}
    # One row alone is plain causal attention, which needs no mask.
    mask = attention_mask(pack, model.dtype, device) if max(pack.segments) > 1 else None
    return {**inputs, "attention_mask": mask}


def use_row_attention(model: Any) -> bool:
    """Let `model` attend by rows where it is given a layout, and as before elsewhere. False: it cannot."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if kinds - {"full_attention", "sliding_attention"} or model.config._attn_implementation not in ("sdpa", NAME):
        return False
    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return bool(text._attn_implementation == NAME)


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    pack_layout: Layout | None = None,
    **options: Any,
) -> tuple[Any, None]:
    """As transformers calls it: (1, heads, T, head size) to (1, T, heads, head size)."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if pack_layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    sizes = [pack_layout.shared, *pack_layout.rows] if pack_layout.shared else list(pack_layout.rows)
    # One split is one node of the graph; slices would each fill a gradient of the whole pack with zeros.
    queries, keys, values = (list(tensor.split(sizes, dim=2)) for tensor in (query, key, value))
    outputs = []
    beginning = None
    if pack_layout.shared:
        beginning = (queries.pop(0), keys.pop(0), values.pop(0))
        outputs.append(_row(*beginning, 0, options))
    for row in zip(queries, keys, values, strict=True):
        outputs.append(_row(*row, 0, options) if beginning is None else _continued(beginning, row, options))
    return torch.cat([output.transpose(1, 2) for output in outputs], dim=1), None


def _continued(beginning: tuple[Any, Any, Any], row: tuple[Any, Any, Any], options: dict[str, Any]) -> Any:
    """A row that attends to the common beginning too."""
    import torch

    shared, length = beginning[0].shape[2], row[0].shape[2]
    keys, values = (torch.cat([beginning[index], row[index]], dim=2) for index in (1, 2))
    if shared > length:
        return _row(row[0], keys, values, shared, options)
    # Its queries once more are cheaper than a mask, which keeps the kernel from leaving out half of the products.
    return _row(torch.cat([beginning[0], row[0]], dim=2), keys, values, 0, options)[:, :, shared:]


def _row(query: Any, key: Any, value: Any, earlier: int, options: dict[str, Any]) -> Any:
    """(1, heads, L, head size) of queries that come after `earlier` of the keys."""
    import torch

    length, total = query.shape[2], key.shape[2]
    window = options.get("sliding_window")
    softcap = options.get("softcap")
    visible: Any = None
    if earlier or softcap or (window is not None and window < total):
        visible = torch.ones(length, total, dtype=torch.bool, device=query.device).tril(earlier)
        if window is not None:
            visible = visible.triu(earlier - window + 1)
    dropout, scaling = options.get("dropout", 0.0), options.get("scaling")
    grouped = query.shape[1] != key.shape[1]
    if not softcap:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=visible, dropout_p=dropout, scale=scaling, is_causal=visible is None,
            enable_gqa=grouped,
        )  # fmt: skip
    if grouped:
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    scores = (torch.tanh(scores / softcap) * softcap).masked_fill(visible.logical_not(), float("-inf"))
    weights = torch.softmax(scores.float(), dim=-1).to(query.dtype)
    return torch.nn.functional.dropout(weights, dropout) @ value
