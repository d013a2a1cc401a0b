"""What a model has to fit into, and whether it does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftagent.toolkit.checking.memory import METHODS, MIB, Estimate, Method, Shape, estimate

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Device:
    """The largest GPU, or the machine's RAM where there is none. `size`: bytes of a weight in its default dtype."""

    kind: str
    name: str
    total: int
    size: int

    @property
    def dtype(self) -> str:
        return "float32" if self.size == 4 else "bfloat16"


@dataclass(frozen=True)
class Need:
    """One way to use a model. `advice`: "" where it fits, else what would."""

    method: Method
    length: int
    batch: int
    plain: Estimate
    checkpointed: Estimate | None
    fits: bool
    advice: str

    def document(self) -> dict[str, Any]:
        """As JSON, in MiB."""
        return {
            "method": self.method,
            "length": self.length,
            "batch": self.batch,
            "mb": round(self.plain.total / MIB),
            "mb_with_gradient_checkpointing": self.checkpointed and round(self.checkpointed.total / MIB),
            "parts_mb": {name: round(value / MIB) for name, value in vars(self.plain).items()},
            "fits": self.fits,
            "advice": self.advice,
        }


def find_device() -> Device:
    """What `device: auto` and `dtype: auto` of a training choose here."""
    import torch

    from ftagent.toolkit.models import choose_dtype

    if torch.cuda.is_available():
        every = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        largest = max(every, key=lambda device: device.total_memory)
        return Device("cuda", largest.name, largest.total_memory, choose_dtype("auto", "cuda").itemsize)
    return Device("cpu", "RAM", _ram(), choose_dtype("auto", "cpu").itemsize)


def _ram() -> int:
    """Bytes that this process may have: of the machine, or of its container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUP_LIMITS:
        try:
            total = min(total, int(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return total


def needs(shape: Shape, lengths: Sequence[int], batch: int, device: Device, rank: int) -> list[Need]:
    """Each method at each length, against `device`."""
    return [_need(shape, method, length, batch, device, rank) for length in lengths for method in METHODS]


def _need(shape: Shape, method: Method, length: int, batch: int, device: Device, rank: int) -> Need:
    def total(rows: int, checkpointing: bool) -> Estimate:
        return estimate(shape, method, rows * length, device.size, device.kind, rank, checkpointing)

    plain = total(batch, False)
    checkpointed = None if method == "inference" else total(batch, True)
    if method == "qlora" and device.kind == "cpu":
        return Need(method, length, batch, plain, checkpointed, False, "needs a GPU: bitsandbytes")
    fits = plain.total <= device.total
    advice = "" if fits else _advice(total, batch, device.total, method)
    return Need(method, length, batch, plain, checkpointed, fits, advice)


def _advice(total: Callable[[int, bool], Estimate], batch: int, available: int, method: Method) -> str:
    choices = []
    rows = _largest(lambda count: total(count, False).total <= available, batch)
    if rows:
        choices.append(f"a batch of {rows}")
    rows = 0 if method == "inference" else _largest(lambda count: total(count, True).total <= available, batch)
    if rows:
        choices.append("gradient checkpointing" + (f" and a batch of {rows}" if rows < batch else ""))
    if choices:
        return " or ".join(choices)
    return "LoRA, or a smaller model" if method == "full" else "a smaller model or a shorter length"


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest count up to `most` that fits; 0 where none does. What fits, fits with less."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
