"""Linear layers through oneDNN, which multiplies float32 matrices about twice as fast as MKL does on AMD's CPUs.

A LoRA layer is one product: W + s·B·A is put together for the pass and forgotten. That costs K·N·r multiplications
instead of T·(K + N)·r, and saves one reading and writing of the output, so it pays where there are more
tokens than `MERGE_SHARE` of the layer is wide.
"""

from __future__ import annotations

from functools import partial
from typing import Any

MERGE_SHARE = 0.5
"""LoRA is merged on the fly from this many tokens per K·N / (K + N)."""


def available() -> bool:
    """Whether this torch multiplies float32 matrices on the CPU through oneDNN."""
    import torch

    present: Any = torch.backends.mkldnn
    return bool(present.is_available()) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(x: Any, weight: Any, bias: Any = None) -> Any:
    """x·weightᵀ + bias for (T, K), (N, K), (N); any strides. Float32 on the CPU; not recorded by autograd."""
    import torch

    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def use_fast_linears(model: Any) -> list[Any]:
    """Let the float32 linear layers of `model`, LoRA's too, compute as this file does. Returns the changed modules."""
    import torch
    from torch import nn

    functions = _functions()
    changed = []
    for module in model.modules():
        plain = (
            type(module) is nn.Linear and module.weight.dtype == torch.float32 and module.weight.device.type == "cpu"
        )
        if plain:
            module.forward = partial(_linear, module, functions)
            changed.append(module)
        elif hasattr(module, "lora_A") and isinstance(getattr(module, "base_layer", None), nn.Linear):
            module.forward = partial(_lora, module, type(module).forward, functions)
            changed.append(module)
    return changed


def _linear(module: Any, functions: Any, x: Any) -> Any:
    import torch

    weight, bias = module.weight, module.bias
    if x.dtype != torch.float32 or weight.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return torch.nn.functional.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    recorded = torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    )
    y = functions.linear.apply(flat, weight, bias) if recorded else product(flat, weight.detach(), bias)
    return y.view(*x.shape[:-1], y.shape[-1])


def _lora(module: Any, otherwise: Any, functions: Any, x: Any, *arguments: Any, **options: Any) -> Any:
    """LoRA with one plain adapter here; anything else as PEFT computes it."""
    import torch

    base = module.base_layer
    names = [name for name in module.active_adapters if name in module.lora_A]
    if (
        arguments or options or module.disable_adapters or module.merged or len(names) != 1 or module.lora_variant
        or x.dtype != torch.float32 or base.weight.dtype != torch.float32 or base.weight.device.type != "cpu"
        or base.weight.requires_grad or torch.is_autocast_enabled("cpu")
        or any(layer.bias is not None for layer in (module.lora_A[names[0]], module.lora_B[names[0]]))
    ):  # fmt: skip
        return otherwise(module, x, *arguments, **options)
    name = names[0]
    down, up, scale = module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name]
    flat = x.reshape(-1, x.shape[-1])
    dropout = module.lora_dropout[name]
    if module.training and getattr(dropout, "p", 0) > 0:
        result = _linear(base, functions, flat)
        dropped = dropout(flat)
        y = result + functions.linear.apply(functions.linear.apply(dropped, down, None), up, None) * scale
    else:
        y = functions.lora.apply(flat, base.weight, base.bias, down, up, scale)
    return y.view(*x.shape[:-1], y.shape[-1])


def _merged(weight: Any, down: Any, up: Any, scale: float) -> Any:
    import torch

    return torch.addmm(weight, up, down, alpha=scale)


class _Functions:
    """The autograd functions; classes can derive from torch's only once it is imported."""

    def __init__(self, linear: Any, lora: Any) -> None:
        self.linear, self.lora = linear, lora


def _functions() -> _Functions:
    import torch

    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, bias: Any) -> Any:
            ctx.save_for_backward(x if weight.requires_grad else None, weight)
            return product(x, weight, bias)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            x, weight = ctx.saved_tensors
            needs_x, needs_weight, needs_bias = ctx.needs_input_grad
            gradient = gradient.contiguous()
            return (
                product(gradient, weight.t()) if needs_x else None,
                product(gradient.t(), x.t()) if needs_weight else None,
                gradient.sum(0) if needs_bias else None,
            )

    class Lora(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, bias: Any, down: Any, up: Any, scale: float) -> Any:
            width = weight.shape[0] * weight.shape[1] / (weight.shape[0] + weight.shape[1])
            ctx.scale, ctx.merge = scale, x.shape[0] > MERGE_SHARE * width
            ctx.save_for_backward(x, weight, down, up)
            if ctx.merge:
                return product(x, _merged(weight, down, up, scale), bias)
            return product(x, weight, bias).addmm_(product(x, down), up.t(), alpha=scale)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            x, weight, down, up = ctx.saved_tensors
            gradient = gradient.contiguous()
            inner = product(gradient, up.t()).mul_(ctx.scale)
            # oneDNN is slow where the result is as narrow as the rank, so the transpose of it is computed.
            up_gradient = product(product(x, down).t(), gradient.t()).mul_(ctx.scale).t()
            down_gradient = product(inner.t(), x.t())
            x_gradient = None
            if ctx.needs_input_grad[0]:
                if ctx.merge:
                    x_gradient = product(gradient, _merged(weight, down, up, ctx.scale).t())
                else:
                    x_gradient = product(gradient, weight.t()).addmm_(inner, down)
            return x_gradient, None, None, down_gradient, up_gradient, None

    return _Functions(Linear, Lora)
