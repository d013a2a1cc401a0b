"""A model in parts: each process keeps its share of every tensor, and the whole of one layer exists while it computes.

PyTorch's `fully_shard` (FSDP2) does that. A trained parameter is a DTensor then, as are its gradient and its moments.
The functions here also take parameters of DeepSpeed (zero.py) and plain tensors, and let the latter be what they are.
Those that gather, and `put`, wait for all processes.
"""

from __future__ import annotations

from typing import Any

from ftagent.toolkit import zero


def shard(model: Any) -> None:
    """Split every parameter of `model`, adapters in place, over all processes. It may lie on the CPU and ends on this
    process's device. Gradients become sums over the processes. Raises ToolkitError for an unknown architecture."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    from ftagent.toolkit.models import decoder_layers

    mesh = init_device_mesh(device_of_processes(), (distributed.get_world_size(),))
    # By itself the outermost part would stay whole after a forward pass without a backward one, as in validation, and
    # the next pass would use it as it was before the optimiser's steps.
    for module in (*decoder_layers(model)[1], model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            # Else a sum is asked for as a premultiplied one, which NCCL alone knows.
            module.set_force_sum_reduction_for_comms(True)


def device_of_processes() -> str:
    """`cuda` or `cpu`: where tensors lie that the processes exchange."""
    from torch import distributed

    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


def is_shared_out(tensor: Any) -> bool:
    """Whether `tensor` is a DTensor. Asked by its method: importing the class takes a second."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Any, wanted: bool = True) -> Any:
    """All of `tensor`, whose gradients are not followed; None where the process does not want it."""
    if zero.is_in_parts(tensor):
        return zero.whole(tensor, wanted)
    found = tensor.detach()
    if not is_shared_out(found):
        return found if wanted else None
    found = found.full_tensor()
    return found.cpu() if wanted else None


def whole_weights(model: Any, trained_only: bool, wanted: bool) -> dict[str, Any] | None:
    """Name → all of each parameter and buffer that `model` saves; parameters that share memory still do."""
    found: dict[str, Any] = {}
    gathered: dict[int, Any] = {}
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if trained_only and id(tensor) not in trained:
            continue
        if id(tensor) not in gathered:
            gathered[id(tensor)] = whole(tensor, wanted)
        found[name] = gathered[id(tensor)]
    return found if wanted else None


def put(tensor: Any, parameter: Any) -> None:
    """Make `tensor`, whole, the value of `parameter`."""
    if zero.is_updated_by_zero(parameter):
        zero.put(tensor, parameter)
    else:
        parameter.copy_(share_like(tensor, parameter))


def share_like(tensor: Any, parameter: Any) -> Any:
    """Of `tensor`, whole and of the shape of `parameter`, what this process keeps of `parameter`."""
    moved = tensor.to(parameter.device)
    if not is_shared_out(parameter):
        return moved
    from torch.distributed.tensor import distribute_tensor

    # Every process has the whole, so that none needs to send any.
    return distribute_tensor(moved, parameter.device_mesh, parameter.placements, src_data_rank=None)
