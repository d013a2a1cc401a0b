"""A key-value cache that grows in place and from which rows can be dropped.

The usual dynamic cache copies all that it holds for each new token; on a CPU that costs as much as the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

GROWTH = 64
"""Least number of positions by which a buffer grows."""


class GrowingLayer:
    """Keys and values of one layer, (rows, heads, positions, head size), as transformers expects them."""

    is_sliding = False
    is_compileable = False
    is_croppable = False
    is_initialized = True

    def __init__(self, keys: Any = None, values: Any = None) -> None:
        self.keys = keys
        self.values = values
        self.length = 0 if keys is None else int(keys.shape[2])

    def update(self, keys: Any, values: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Append; returns views of all that is held."""
        if self.keys is None:
            self.keys, self.values = keys[:, :, :0], values[:, :, :0]
        end = self.length + keys.shape[2]
        if end > self.keys.shape[2]:
            self.keys = self._grown(self.keys, end)
            self.values = self._grown(self.values, end)
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def select(self, rows: Any) -> None:
        """Keep only `rows`, a tensor of indices."""
        self.keys = self.keys.index_select(0, rows)
        self.values = self.values.index_select(0, rows)

    def repeated(self, rows: int) -> GrowingLayer:
        """A cache of `rows` rows that each hold what the one row of this holds."""
        held = [
            tensor[:, :, : self.length].expand(rows, -1, -1, -1) for tensor in (self.keys, self.values)
        ]  # fmt: skip
        return GrowingLayer(*held)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    def _grown(self, tensor: Any, least: int) -> Any:
        shape = (*tensor.shape[:2], max(least + GROWTH, tensor.shape[2] * 3 // 2), tensor.shape[3])
        grown = tensor.new_empty(shape)
        grown[:, :, : self.length] = tensor[:, :, : self.length]
        return grown


def new_cache(layers: int) -> Any:
    """An empty cache for a model of `layers` layers."""
    return _cache([GrowingLayer() for _ in range(layers)])


def repeat_cache(cache: Any, rows: int) -> Any:
    """A cache of `rows` rows that each begin with the one row of `cache`."""
    return _cache([layer.repeated(rows) for layer in cache.layers])


def keep_rows(cache: Any, rows: Any) -> None:
    """Drop all rows but `rows`, a tensor of indices."""
    for layer in cache.layers:
        layer.select(rows)


def _cache(layers: Sequence[GrowingLayer]) -> Any:
    from transformers.cache_utils import Cache, CacheLayerMixin

    # A virtual subclass: deriving from it would import transformers with this module.
    CacheLayerMixin.register(GrowingLayer)
    return Cache(layers=list(layers))  # type: ignore[arg-type]
