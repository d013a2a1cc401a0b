"""What updates the trained weights of a step: torch's AdamW, or DeepSpeed around it (zero.py)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.sharding import share_like, whole
from ftagent.toolkit.share import Share


class Optimizer(Protocol):
    """Where parameters or moments are in parts, every process calls each of these."""

    def start(self, rate: float) -> None:
        """Begin a step: no gradients, and the learning rate `rate`."""

    def step(self, most: float) -> float | None:
        """Update from the gradients, clipped to the norm `most`; 0 is no clipping.

        Returns their norm, None where nobody has to look at it. Where it is no number, the weights count no more.
        """

    def moments(self, parameter: Any, wanted: bool) -> dict[str, Any]:
        """Name → all of each moment of `parameter`, its counter `step` among them; none where they are not `wanted`."""

    def restore(self, moments: Iterable[tuple[Any, Mapping[str, Any]]]) -> None:
        """Take back what `moments` gave: pairs of a parameter and its moments."""


def adamw(model: Any, config: TrainConfig) -> Any:
    """Torch's AdamW over what is trained of `model`."""
    import torch

    return torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )


class TorchOptimizer:
    """AdamW of each process over all trained weights, or over its part of them."""

    def __init__(self, wrapped: Any, share: Share) -> None:
        self._wrapped = wrapped
        self._share = share

    def start(self, rate: float) -> None:
        """See `Optimizer`."""
        for group in self._wrapped.param_groups:
            group["lr"] = rate
        self._wrapped.zero_grad(set_to_none=True)

    def step(self, most: float) -> float | None:
        """See `Optimizer`. In float16 the scaler skips a step whose gradients are no numbers."""
        import torch

        trained = [parameter for group in self._wrapped.param_groups for parameter in group["params"]]
        self._share.sum_gradients(trained)
        scaler = self._share.scaler
        if scaler is not None:
            scaler.unscale_(self._wrapped)
        norm = None
        if most:
            found = torch.nn.utils.clip_grad_norm_(trained, most)
            norm = float(whole(found)) if scaler is None else None
        if norm is not None and not math.isfinite(norm):
            return norm
        if scaler is None:
            self._wrapped.step()
        else:
            scaler.step(self._wrapped)
            scaler.update()
        return norm

    def moments(self, parameter: Any, wanted: bool) -> dict[str, Any]:
        """See `Optimizer`."""
        found = {key: whole(value, wanted) for key, value in self._wrapped.state.get(parameter, {}).items()}
        return found if wanted else {}

    def restore(self, moments: Iterable[tuple[Any, Mapping[str, Any]]]) -> None:
        """See `Optimizer`."""
        for parameter, values in moments:
            for key, value in values.items():
                # The fused optimiser wants its counter of steps, which is never split, beside the parameter, too.
                moved = share_like(value, parameter) if value.dim() else value.to(parameter.device)
                self._wrapped.state[parameter][key] = moved
