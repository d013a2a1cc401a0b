"""Several processes that train one model, as `accelerate launch` and torchrun start them."""

from __future__ import annotations

import os

from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.share import Share


def join_processes(config: TrainConfig) -> Share:
    """This process's share. One process by itself imports nothing for it."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Share()
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
