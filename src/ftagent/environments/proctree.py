"""A process tree as /proc shows it. Used where no control group counts for us."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def children(pid: int) -> list[int]:
    """Direct children of all threads of `pid`; [] when it is gone."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    except OSError:
        pass
    return found


def descendants(pid: int) -> list[int]:
    """Everything below `pid`, parents first."""
    found, queue = [], [pid]
    while queue:
        below = children(queue.pop())
        found += below
        queue += below
    return found


def resident_bytes(pids: list[int]) -> int:
    """Sum of resident sizes. Memory that processes share is counted once for each, so this errs upwards."""
    page, total = os.sysconf("SC_PAGE_SIZE"), 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError, ValueError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
    return total


def kill(pids: list[int]) -> None:
    """SIGKILL each; those that are gone are no error."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def marked(variable: str, value: str) -> list[int]:
    """Processes whose environment at start held `variable=value`."""
    wanted, found = f"{variable}={value}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def tasks_of(uid: int) -> int:
    """Threads that user `uid` has now: what RLIMIT_NPROC counts."""
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                if entry.stat().st_uid == uid:
                    total += len(list((entry / "task").iterdir()))
    return total
