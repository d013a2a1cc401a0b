"""In which number format weights are kept, and in which passes compute."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from ftagent.toolkit.config import Dtype, TrainConfig
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.models import choose_device, choose_dtype


@dataclass(frozen=True)
class Precision:
    """`weights`: as the model is loaded. `saved`: of full weights on disk, a torch dtype. `autocast`: of passes."""

    weights: Dtype
    saved: Any
    autocast: Callable[[], AbstractContextManager[Any]]
    scaler: Any

    @property
    def autocasts(self) -> bool:
        """Whether passes compute in another format than weights are kept in."""
        return self.autocast is not contextlib.nullcontext


def choose_precision(config: TrainConfig) -> Precision:
    """The formats for `config`'s method on this machine. Raises ToolkitError for float16 without a GPU.

    Full training keeps weights in float32, because a small step added to a 16-bit weight is lost in rounding, and
    computes in 16 bits. Adapters are float32 over a base in the chosen format. Float16 scales losses, so that small
    gradients do not vanish.
    """
    import torch

    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    scaler = torch.amp.GradScaler(device) if dtype is torch.float16 else None
    if dtype is torch.float32:
        return Precision("float32", dtype, contextlib.nullcontext, None)
    name: Dtype = "float16" if dtype is torch.float16 else "bfloat16"
    if config.method != "full":
        return Precision(name, dtype, contextlib.nullcontext, scaler)
    return Precision("float32", dtype, partial(torch.autocast, device, dtype=dtype), scaler)


def check_qlora(config: TrainConfig) -> None:
    """Raises ToolkitError where method qlora cannot run: no GPU, or no bitsandbytes."""
    import importlib.util

    import torch

    if config.method != "qlora":
        return
    if config.device == "cpu" or not torch.cuda.is_available():
        raise ToolkitError("method: qlora needs a GPU, and torch sees none; method lora also runs on a CPU")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ToolkitError("method: qlora needs the package bitsandbytes; run `pip install 'ftagent[qlora]'`")


def quantisation(compute: Any) -> Any:
    """4-bit NormalFloat weights, their scales quantised again, computed with in dtype `compute` (QLoRA, 2305.14314)."""
    from transformers import BitsAndBytesConfig

    kind: Any = BitsAndBytesConfig
    return kind(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
