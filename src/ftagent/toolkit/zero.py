"""DeepSpeed's ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054): gradients and moments in parts, and in stage 3 weights.

Its engine runs the passes, sums the gradients after each, clips and updates. All else stays ours: the schedule, what a
step sees, and checkpoints, which hold whole tensors, so that any strategy in any number of processes goes on from them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ftagent.toolkit.errors import ToolkitError

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Of AdamW, as torch and DeepSpeed name them."""
COUNTER = "step"


def is_in_parts(tensor: Any) -> bool:
    """Whether `tensor` is a parameter that stage 3 has split."""
    return hasattr(tensor, "ds_id")


def is_updated_by_zero(parameter: Any) -> bool:
    """Whether ZeRO keeps values of its own for `parameter`, in any stage."""
    return is_in_parts(parameter) or hasattr(parameter, "_hp_mapping")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what DeepSpeed prints off stdout, where records are."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)


def import_deepspeed(device: str) -> Any:
    """The package, which computes on `device`, `cpu` or `cuda`."""
    # It calls torch by old names, in every step.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    # Read when it is first imported; by itself it takes a GPU that it sees.
    os.environ["DS_ACCELERATOR"] = device
    with quiet():
        import deepspeed

        # Messages in shared memory would be compiled at the start by whatever compiler there is; gloo is there already.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def whole(parameter: Any, wanted: bool) -> Any:
    """All of a `parameter` in parts; None where the process does not want it."""
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().cpu().clone() if wanted else None


def put(tensor: Any, parameter: Any) -> None:
    """Make `tensor`, whole, the value of `parameter`: of the one that computes and of the one that is updated."""
    import deepspeed

    if is_in_parts(parameter):
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.copy_(tensor)
        deepspeed.utils.safe_set_local_fp32_param(parameter, _own_part(tensor, parameter))
    else:
        parameter.copy_(tensor)
        deepspeed.utils.safe_set_full_fp32_param(parameter, parameter.detach())


def _own_part(tensor: Any, parameter: Any) -> Any:
    """What this process keeps of `tensor`, whole, for a `parameter` in parts: flat, zeros behind the last number."""
    import torch
    from torch import distributed

    size = parameter.ds_tensor.numel()
    flat = tensor.to(parameter.device).flatten()
    padded = torch.nn.functional.pad(flat, (0, size * distributed.get_world_size() - flat.numel()))
    return padded.narrow(0, size * distributed.get_rank(), size)


class Passes:
    """A model as objectives use it, whose passes go through DeepSpeed's engine."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __call__(self, **inputs: Any) -> Any:
        return self._engine(**inputs)

    def backward(self, loss: Any) -> None:
        """Add the gradients of `loss`, averaged over the processes, each of which calls this as often."""
        self._engine.backward(loss)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine.module, name)


@dataclass(frozen=True)
class Zero:
    """What stands for a model and its optimiser while ZeRO has them."""

    passes: Any
    optimizer: ZeroOptimizer


def start_zero(model: Any, wrapped: Any, settings: Mapping[str, Any]) -> Zero:
    """Give `model` and `wrapped`, an AdamW over it, to an engine with `settings`; the model ends on its device.

    Raises ToolkitError for settings that DeepSpeed refuses.
    """
    import deepspeed
    from pydantic import ValidationError

    with quiet():
        try:
            engine, *_ = deepspeed.initialize(model=model, optimizer=wrapped, config=dict(settings))
        except ValidationError as error:
            wrong = error.errors()[0]
            key = ".".join(str(part) for part in wrong["loc"])
            raise ToolkitError(f"deepspeed: {key}: {wrong['msg']}, not {wrong['input']!r}") from error
        except (ValueError, AssertionError) as error:  # settings that do not go together
            raise ToolkitError(f"deepspeed: {' '.join(str(error).split())[:300]}") from error
    return Zero(Passes(engine), ZeroOptimizer(engine, wrapped))


class ZeroOptimizer:
    """`engine` around `wrapped`, an AdamW of torch."""

    def __init__(self, engine: Any, wrapped: Any) -> None:
        self._engine = engine
        self._wrapped = wrapped

    def start(self, rate: float) -> None:
        """See `Optimizer`. The engine clears gradients after each step itself."""
        for group in self._wrapped.param_groups:
            group["lr"] = rate

    def step(self, most: float) -> float | None:
        """See `Optimizer`. The engine was told `most` when it was made."""
        self._engine.step()
        return float(self._engine.get_global_grad_norm()) if self._engine.was_step_applied() else math.inf

    def moments(self, parameter: Any, wanted: bool) -> dict[str, Any]:
        """See `Optimizer`."""
        from deepspeed.utils import safe_get_full_optimizer_state

        found = {}
        for key in MOMENTS:
            gathered = safe_get_full_optimizer_state(parameter, key)
            if wanted:
                found[key] = gathered.cpu()
        counter = next(iter(self._wrapped.state.values()))[COUNTER]
        return {COUNTER: counter.detach().cpu().clone(), **found} if wanted else {}

    def restore(self, moments: Iterable[tuple[Any, Mapping[str, Any]]]) -> None:
        """See `Optimizer`."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        self._make_moments()
        for parameter, values in moments:
            for key in MOMENTS:
                if is_in_parts(parameter):
                    safe_set_local_optimizer_state(parameter, _own_part(values[key], parameter), key)
                else:
                    safe_set_full_optimizer_state(parameter, values[key].to(parameter.device), key)
            for state in self._wrapped.state.values():
                state[COUNTER].fill_(float(values[COUNTER]))

    def _make_moments(self) -> None:
        """Moments exist from the first step on: take one that changes nothing."""
        import torch

        from ftagent.toolkit.losses import summed_loss
        from ftagent.toolkit.objectives.sft import FILLER

        passes = Passes(self._engine)
        self.start(0.0)
        with torch.enable_grad():
            passes.backward(summed_loss(passes, FILLER) * 0.0)
        self._engine.step()
