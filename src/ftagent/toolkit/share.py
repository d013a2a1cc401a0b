"""The part that this process has in a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ftagent.toolkit.sharding import device_of_processes

Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """Process `rank` of `processes`, which share the work of each step. `scaler`: a GradScaler in float16.
    `sharded`: they share the model, or its gradients, too, so that each takes part in every pass of another.
    `engine`: the model has a `backward` of its own, which makes means of them.

    An objective takes its part of a step's rows with `of`, divides by what the whole step has, and calls `backward`:
    gradients and measures of all processes then sum to those of the step.
    """

    rank: int = 0
    processes: int = 1
    scaler: Any = None
    sharded: bool = False
    engine: bool = False

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items that are this process's."""
        return items[self.rank :: self.processes]

    def even(self, items: Sequence[Item], filler: Item) -> list[tuple[Item, float]]:
        """`items`, each to be counted once (1.0), and where the model is shared as many of `filler`, not to be counted
        (0.0), as another process has items more."""
        import torch
        from torch import distributed

        counted = [(item, 1.0) for item in items]
        if not self.sharded:
            return counted
        most = torch.tensor(len(items), device=device_of_processes())
        distributed.all_reduce(most, distributed.ReduceOp.MAX)
        return counted + [(filler, 0.0)] * (int(most) - len(items))

    def backward(self, model: Any, loss: Any) -> None:
        """Add the gradients of `loss`, a scalar tensor from a pass of `model`."""
        if self.engine:
            model.backward(loss * self.processes)
        else:
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def sum_gradients(self, parameters: Iterable[Any]) -> None:
        """Replace each gradient by its sum over all processes. In a shared model it is that already."""
        import torch
        from torch import distributed

        if self.processes == 1 or self.sharded:
            return
        trained = list(parameters)
        for parameter in trained:
            if parameter.grad is None:  # a process whose part of the step has no label
                parameter.grad = torch.zeros_like(parameter)
        for dtype in dict.fromkeys(parameter.dtype for parameter in trained):
            gradients = [parameter.grad for parameter in trained if parameter.dtype == dtype]
            # One message for all: adapters are many small tensors, and each message costs a round trip.
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            distributed.all_reduce(flat)
            totals = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, total in zip(gradients, totals, strict=True):
                gradient.copy_(total.view_as(gradient))

    def sum_measures(self, measures: Mapping[str, float]) -> dict[str, float]:
        """The sum of each measure over all processes."""
        import torch
        from torch import distributed

        if self.processes == 1:
            return dict(measures)
        values = torch.tensor(list(measures.values()), dtype=torch.float64, device=device_of_processes())
        distributed.all_reduce(values)
        return dict(zip(measures, values.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds in one process at least."""
        return self.sum_measures({"flag": float(flag)})["flag"] > 0


ALONE = Share()
"""One process, no scaling."""
