"""Log-probabilities of labels from hidden states, a chunk of logits at a time.

The gradient of a label's log-probability with respect to its hidden state does not depend on what is made of it, so it
is computed while the logits are there. Logits are computed again only where the head itself is trained.
"""

from __future__ import annotations

from typing import Any

CHUNK_ELEMENTS = 256 * 49152
"""Logits that exist at a time: 48 MiB in float32, and as much for their softmax."""


def head_logprobs(hidden: Any, weight: Any, bias: Any, targets: Any) -> Any:
    """log softmax(hidden·weightᵀ + bias) at `targets`, in nats: (L, K), (V, K), (V) or None, (L) → float32 (L)."""
    return _function().apply(hidden, weight, bias, targets)


def _product(x: Any, weight: Any, bias: Any = None) -> Any:
    import torch

    from ftagent.toolkit.kernels.linear import available, product

    if x.device.type == "cpu" and x.dtype == torch.float32 and available():
        return product(x, weight, bias)
    return torch.nn.functional.linear(x, weight, bias)


def _probabilities(logits: Any, targets: Any) -> tuple[Any, Any]:
    """(softmax, log-probability of the targets); from softmax, whose exponentials are faster than logsumexp's."""
    import torch

    logits = logits.float()
    probabilities = torch.softmax(logits, dim=-1)
    greatest = logits.amax(dim=-1) - probabilities.amax(dim=-1).log()
    return probabilities, logits.gather(1, targets[:, None])[:, 0] - greatest


def _function() -> Any:
    import torch

    class HeadLogprobs(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, targets: Any) -> Any:
            needs_hidden, ctx.needs_head = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:3])
            chunk = max(1, CHUNK_ELEMENTS // weight.shape[0])
            early = needs_hidden and not ctx.needs_head
            slopes = torch.empty_like(hidden) if early else None
            result = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
            for start in range(0, len(targets), chunk):
                part = slice(start, start + chunk)
                probabilities, result[part] = _probabilities(_product(hidden[part], weight, bias), targets[part])
                if slopes is not None:
                    slopes[part] = _slopes(probabilities, targets[part], weight)
            ctx.save_for_backward(slopes, None if early else hidden, weight, bias, targets)
            return result

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            slopes, hidden, weight, bias, targets = ctx.saved_tensors
            if slopes is not None:
                return (slopes * gradient[:, None].to(slopes.dtype)), None, None, None
            return *_backward(ctx, gradient, hidden, weight, bias, targets), None

    return HeadLogprobs


def _slopes(probabilities: Any, targets: Any, weight: Any) -> Any:
    """Gradient of each log-probability with respect to its hidden state. Overwrites `probabilities`."""
    import torch

    ones = torch.ones(len(targets), 1, dtype=probabilities.dtype, device=probabilities.device)
    probabilities.scatter_add_(1, targets[:, None], -ones)
    return _product(probabilities.to(weight.dtype), weight.t()).neg_()


def _backward(ctx: Any, gradient: Any, hidden: Any, weight: Any, bias: Any, targets: Any) -> tuple[Any, Any, Any]:
    """Gradients of hidden states, weight and bias, where they are needed."""
    import torch

    hidden_gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
    weight_gradient = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
    bias_gradient = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
    chunk = max(1, CHUNK_ELEMENTS // weight.shape[0])
    for start in range(0, len(targets), chunk):
        part = slice(start, start + chunk)
        slope, _ = _probabilities(_product(hidden[part], weight, bias), targets[part])
        ones = torch.ones(len(slope), 1, dtype=slope.dtype, device=slope.device)
        slope.scatter_add_(1, targets[part, None], -ones)
        slope = slope.mul_(-gradient[part, None]).to(weight.dtype)
        if hidden_gradient is not None:
            hidden_gradient[part] = _product(slope, weight.t())
        if weight_gradient is not None:
            weight_gradient += _product(slope.t(), hidden[part].t())
        if bias_gradient is not None:
            bias_gradient += slope.sum(0)
    return hidden_gradient, weight_gradient, bias_gradient
