"""Root-mean-square norms as one step of the graph, which keeps their input and one number a token."""

from __future__ import annotations

from functools import partial
from typing import Any


def use_fast_norms(model: Any) -> list[Any]:
    """Let norms that are x / rms(x) · (w or 1 + w) compute as this file does. Returns the changed modules."""
    import torch

    function = _function()
    changed = []
    for module in model.modules():
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        weight = getattr(module, "weight", None)
        if not type(module).__name__.endswith("RMSNorm") or epsilon is None or weight is None or weight.dim() != 1:
            continue
        if weight.dtype != torch.float32 or list(module.children()):
            continue
        plus = _plus(module, epsilon)
        if plus is not None:
            module.forward = partial(_norm, module, epsilon, plus, function)
            changed.append(module)
    return changed


def _plus(module: Any, epsilon: float) -> float | None:
    """What `module` adds to its weight, 0 or 1; None where it computes something else."""
    import torch

    weight = module.weight.detach()
    x = torch.linspace(-3, 2, 3 * len(weight), dtype=weight.dtype, device=weight.device).view(3, -1)
    with torch.no_grad():
        found = type(module).forward(module, x)
        for plus in (0.0, 1.0):
            if torch.allclose(found, _scaled(x, weight + plus, epsilon)[0], rtol=1e-5, atol=1e-6):
                return plus
    return None


def _scaled(x: Any, weight: Any, epsilon: float) -> tuple[Any, Any]:
    """(x / rms(x) · weight, 1 / rms(x))."""
    import torch

    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    return (x * inverse).mul_(weight), inverse


def _norm(module: Any, epsilon: float, plus: float, function: Any, x: Any) -> Any:
    import torch

    if x.dtype != torch.float32 or torch.is_autocast_enabled(x.device.type):
        return type(module).forward(module, x)
    weight = module.weight + plus if plus else module.weight
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return function.apply(x, weight, epsilon)
    return _scaled(x, weight, epsilon)[0]


def _function() -> Any:
    import torch

    class Norm(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, epsilon: float) -> Any:
            result, inverse = _scaled(x, weight, epsilon)
            ctx.save_for_backward(x, weight, inverse)
            return result

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            x, weight, inverse = ctx.saved_tensors
            needs_x, needs_weight, _ = ctx.needs_input_grad
            weight_gradient = (x * inverse).mul_(gradient).flatten(0, -2).sum(0) if needs_weight else None
            if not needs_x:
                return None, weight_gradient, None
            scaled = gradient * weight
            mean = torch.linalg.vecdot(scaled, x)[..., None].div_(x.shape[-1])
            # (g·w − x · mean(g·w·x) / rms²) / rms
            scaled.addcmul_(x, mean.mul_(inverse).mul_(inverse), value=-1).mul_(inverse)
            return scaled, weight_gradient, None

    return Norm
