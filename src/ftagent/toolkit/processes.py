"""Several processes that train one model, as `accelerate launch` and torchrun start them."""

from __future__ import annotations

import os

from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.share import Share
from ftagent.toolkit.zero import import_deepspeed
from ftagent.toolkit.zero_settings import check_deepspeed, uses_deepspeed


def join_processes(config: TrainConfig) -> Share:
    """This process's share. One process by itself imports nothing for it.

    Raises ToolkitError where `accelerate launch` was told to split the model itself, and for `check_deepspeed`.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    check_deepspeed(config, processes)
    if processes < 2:
        return Share()
    for name in ("FSDP", "DEEPSPEED"):
        # Transformers would leave the weights of all processes but the first unread.
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() not in ("false", "0", ""):
            ours = "`strategy: fsdp`" if name == "FSDP" else "`strategy: deepspeed-zero3`"
            raise ToolkitError(f"accelerate: leave --use_{name.lower()} out; {ours} splits the model")
    from accelerate import PartialState  # type: ignore[import-untyped]

    from ftagent.toolkit.models import choose_device

    device, by_deepspeed = choose_device(config.device), uses_deepspeed(config)
    if by_deepspeed:
        import_deepspeed(device)  # before any other library does
    # Without being told, a machine without GPU is taken for one process alone.
    state = PartialState(cpu=device == "cpu")
    return Share(state.process_index, state.num_processes, sharded=config.strategy != "ddp", engine=by_deepspeed)


def leave_processes() -> None:
    """End the group of processes, where there is one."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def wait_for_all(share: Share) -> None:
    """Until every process has come here."""
    from torch import distributed

    if share.processes > 1:
        distributed.barrier()
