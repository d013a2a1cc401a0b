"""silu(gate) · up as one step of the graph, which keeps its two inputs and nothing between."""

from __future__ import annotations

from functools import partial
from typing import Any


def use_fast_gates(model: Any) -> list[Any]:
    """Let feed-forward blocks of the form down(silu(gate(x)) · up(x)) compute as this file does."""
    from torch import nn

    function = _function()
    changed = []
    for module in model.modules():
        parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
        activation = getattr(module, "act_fn", None)
        silu = isinstance(activation, nn.SiLU) or type(activation).__name__ == "SiLUActivation"
        if silu and all(isinstance(part, nn.Module) for part in parts) and len(list(module.children())) == 4:
            module.forward = partial(_forward, module, function)
            changed.append(module)
    return changed


def _forward(module: Any, function: Any, x: Any) -> Any:
    import torch

    gate, up = module.gate_proj(x), module.up_proj(x)
    if torch.is_grad_enabled() and gate.requires_grad:
        return module.down_proj(function.apply(gate, up))
    return module.down_proj(torch.nn.functional.silu(gate).mul_(up))


def _function() -> Any:
    import torch

    class Gate(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, gate: Any, up: Any) -> Any:
            ctx.save_for_backward(gate, up)
            return torch.nn.functional.silu(gate).mul_(up)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            gate, up = ctx.saved_tensors
            up_gradient = torch.nn.functional.silu(gate).mul_(gradient)
            return torch.ops.aten.silu_backward(gradient * up, gate), up_gradient

    return Gate
