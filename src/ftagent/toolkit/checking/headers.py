"""The header of a safetensors file, read without a weight of it.

Format: 8 bytes little-endian N; N bytes of JSON `{name: {"dtype", "shape", "data_offsets": [begin, end]}}` with an
optional `__metadata__` of strings; then the data, which the offsets count from, without holes or overlap.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST_HEADER = 100_000_000
"""Bytes; what safetensors itself refuses to go beyond."""
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
    "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64,
}  # fmt: skip
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})


class DamagedHeader(Exception):
    """The file is no whole safetensors file; the text says why."""


@dataclass(frozen=True)
class Tensor:
    """One entry of a header. `start` and `end` count bytes from the beginning of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads`: an object whose keys are all different. Raises ValueError that names the first double."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} is there twice")
        found[key] = value
    return found


def read_header(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file by name. Raises DamagedHeader, and OSError for a file that cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 2 <= length <= min(LONGEST_HEADER, size - 8):
            raise DamagedHeader(f"its header should have {length} bytes, the file has {size}")
        raw = stream.read(length)
    try:
        entries = json.loads(raw, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise DamagedHeader(f"its header is not JSON ({error})") from error
    if not isinstance(entries, dict):
        raise DamagedHeader("its header is not a JSON object")
    _check_metadata(entries.pop("__metadata__", None))
    tensors = {name: _tensor(name, entry) for name, entry in entries.items()}
    _check_layout(list(tensors.values()), size - 8 - length)
    return tensors


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DamagedHeader("its __metadata__ is not an object of strings")
    # transformers loads no other format.
    if metadata.get("format") != "pt":
        raise DamagedHeader(f"its __metadata__ names the format {metadata.get('format')!r}, not 'pt'")


def _tensor(name: str, entry: Any) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise DamagedHeader(f"{name!r} does not have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in BITS:
        raise DamagedHeader(f"{name!r} has the unknown dtype {dtype!r}")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise DamagedHeader(f"{name!r}: shape or data_offsets are not whole numbers")
    tensor = Tensor(name, dtype, tuple(shape), *offsets)
    if tensor.size * 8 != tensor.elements * BITS[dtype]:
        raise DamagedHeader(f"{name!r}: {dtype} {list(shape)} does not take {tensor.size} bytes")
    return tensor


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_layout(tensors: list[Tensor], available: int) -> None:
    """Each tensor begins where the one before ends, and the last ends with the file."""
    position = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != position:
            raise DamagedHeader(f"{tensor.name!r} begins at byte {tensor.start}, the data before it ends at {position}")
        position = tensor.end
    if position != available:
        state = "is truncated" if position > available else "is too long"
        raise DamagedHeader(f"it {state}: the header describes {position} bytes of data, {available} are there")
