"""What this machine has, asked of the system and never of torch."""

from __future__ import annotations

import os
import shutil
import subprocess

from ftagent.core.context import Gpu, Hardware


def detect() -> Hardware:
    """Cores this process may use, total memory in MiB, NVIDIA devices as nvidia-smi lists them."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return Hardware(cpus=len(os.sched_getaffinity(0)), memory_mb=memory, gpus=gpus())


def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA devices; none where nvidia-smi is missing or fails."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    query = [command, "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [[cell.strip() for cell in line.split(",")] for line in output.splitlines() if line.strip()]
    return tuple(Gpu(row[0], row[1], int(float(row[2]))) for row in rows if len(row) == 3)
