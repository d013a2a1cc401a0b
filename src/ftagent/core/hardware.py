"""What this machine has, asked of the system and never of torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from ftagent.core.context import Gpu, Hardware


def detect() -> Hardware:
    """Cores this process may use, total memory in MiB, NVIDIA devices."""
    return Hardware(cpus=len(os.sched_getaffinity(0)), memory_mb=total_memory_mb(), gpus=gpus())


def gpus(devices: Path = Path("/dev")) -> tuple[Gpu, ...]:
    """The NVIDIA devices as nvidia-smi lists them, none where it fails; without it, by their files in `devices`.

    A container may have the devices and not the program; their names and memory are then unknown.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        ids = sorted(int(file.name[6:]) for file in devices.glob("nvidia*") if file.name[6:].isdecimal())
        return tuple(Gpu(str(number), "NVIDIA GPU", 0) for number in ids)
    query = [command, "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [[cell.strip() for cell in line.split(",")] for line in output.splitlines()]
    return tuple(Gpu(row[0], row[1], _mebibytes(row[2])) for row in rows if len(row) == 3)


def total_memory_mb() -> int:
    """Memory of this machine in MiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def available_memory_mb(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory in MiB that a new process can have without swapping; 0 where the system does not tell."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) // 1024 if found else 0


def free_disk_mb(folder: Path) -> float | None:
    """Space in MiB that this user may fill where `folder` is or would be made; None where the system does not tell."""
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder)
    return disk.free / 2**20 if disk.total else None


def _mebibytes(text: str) -> int:
    """Devices that share the machine's memory say `[N/A]`: unknown."""
    try:
        return int(float(text))
    except ValueError:
        return 0
