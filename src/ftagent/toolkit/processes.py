"""Several processes that train one model, as `accelerate launch` and torchrun start them."""

from __future__ import annotations

import os

from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.share import Share


def join_processes(config: TrainConfig) -> Share:
    """This process's share. One process by itself imports nothing for it.

    Raises ToolkitError where `accelerate launch` was told to split the model itself.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Share()
    for name in ("FSDP", "DEEPSPEED"):
        # Transformers would leave the weights of all processes but the first unread.
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() not in ("false", "0", ""):
            raise ToolkitError(f"accelerate: leave --use_{name.lower()} out; `strategy: fsdp` splits the model")
    from accelerate import PartialState  # type: ignore[import-untyped]

    from ftagent.toolkit.models import choose_device

    # Without being told, a machine without GPU is taken for one process alone.
    state = PartialState(cpu=choose_device(config.device) == "cpu")
    return Share(state.process_index, state.num_processes, sharded=config.strategy == "fsdp")


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
