"""Control groups, version 1 and 2: the limits that a whole process tree cannot escape.

Where none is writable, memory is bounded by adding up resident sizes every tenth of a second (a fast allocation can
overshoot in between; an address-space limit would be exact but breaks CUDA and threaded allocators, which reserve
far more than they use) and processes by RLIMIT_NPROC, or by counting where the user is root, whom it does not bind.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ftagent.core.types import Resources
from ftagent.environments import proctree

CONTROLLERS = ("memory", "pids", "cpu")
STALE_SECONDS = 60.0


@dataclass(frozen=True)
class Hierarchy:
    """A folder of the control group file system in which groups for these controllers can be made."""

    folder: Path
    version: int
    controllers: tuple[str, ...]


def candidates(mounts: str, own: str) -> Iterator[Hierarchy]:
    """Places to try, best first, from the texts of /proc/self/mountinfo and /proc/self/cgroup.

    Version 1: our own group in each hierarchy. Version 2: our own group and its ancestors, because a group that
    holds processes cannot hand controllers to groups below it.
    """
    groups = {tuple(line.split(":", 2)[1].split(",")): line.split(":", 2)[2] for line in own.splitlines()}
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        root, mount = left.split()[3:5]
        kind, _, options = right.split()[:3]
        if kind not in ("cgroup", "cgroup2"):
            continue
        for names, path in groups.items():
            inside = path.removeprefix(root.rstrip("/")).lstrip("/")
            place = Path(mount, *(part for part in inside.split("/") if part not in ("", "..")))
            if kind == "cgroup2" and names == ("",):
                for folder in (place, *place.parents):
                    if folder.is_relative_to(mount):
                        yield Hierarchy(folder, 2, CONTROLLERS)
            elif kind == "cgroup" and set(names) & set(options.split(",")) & set(CONTROLLERS):
                yield Hierarchy(place, 1, tuple(name for name in CONTROLLERS if name in names))


def discover() -> dict[str, Hierarchy]:
    """Controller → where a group that really works can be made; missing where there is none."""
    found: dict[str, Hierarchy] = {}
    try:
        mounts, own = Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
    except OSError:
        return found
    for place in candidates(mounts, own):
        wanted = [name for name in place.controllers if name not in found]
        if place.version == 2:
            with contextlib.suppress(OSError):
                enabled = (place.folder / "cgroup.subtree_control").read_text().split()
                wanted = [name for name in wanted if name in enabled]
        if wanted and _works(place):
            found.update(dict.fromkeys(wanted, place))
    return found


def _works(place: Hierarchy) -> bool:
    """Whether a group can be made there and a process of ours can enter it."""
    group = place.folder / f"ftagent-{os.getpid()}-probe"
    try:
        group.mkdir(exist_ok=True)
        entered = subprocess.run(
            ["/bin/sh", "-c", 'echo 0 > "$1/cgroup.procs"', "sh", str(group)], check=False, capture_output=True
        )
        return entered.returncode == 0
    except OSError:
        return False
    finally:
        _remove_group(group)


@dataclass
class Group:
    """The control groups of one command; empty where none can be made."""

    folders: dict[str, Path] = field(default_factory=dict)
    """Controller → folder; version 2 has one folder for all."""
    versions: dict[str, int] = field(default_factory=dict)

    @property
    def unique(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(self.folders.values()))

    @property
    def entrances(self) -> tuple[str, ...]:
        """Files into which a process writes `0` to enter."""
        return tuple(str(folder / "cgroup.procs") for folder in self.unique)

    def members(self) -> list[int]:
        found: list[int] = []
        for folder in self.unique:
            with contextlib.suppress(OSError):
                found += map(int, (folder / "cgroup.procs").read_text().split())
        return sorted(set(found))

    def kill(self, seconds: float = 10.0) -> bool:
        """SIGKILL all members until none is left; False when some are left after `seconds`."""
        for folder in self.unique:
            with contextlib.suppress(OSError):
                (folder / "cgroup.kill").write_text("1")
        deadline, pause = time.monotonic() + seconds, 0.0005
        while members := self.members():
            proctree.kill(members)
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        return True

    def oom_kills(self) -> int:
        """Members that the kernel killed for want of memory."""
        name = "memory.events" if self.versions.get("memory") == 2 else "memory.oom_control"
        return self._number(name, "oom_kill") or 0

    def peak_bytes(self) -> int | None:
        """Most memory that was charged at once: the processes', files in /tmp, and page cache."""
        if self.versions.get("memory") == 2:
            return self._number("memory.peak")
        return self._number("memory.max_usage_in_bytes")

    def remove(self) -> None:
        """Remove the folders; one that is still busy is left to a later `sweep`."""
        for folder in self.unique:
            for _ in range(20):
                if _remove_group(folder):
                    break
                time.sleep(0.005)

    def _number(self, file: str, key: str = "") -> int | None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            text = (self.folders["memory"] / file).read_text()
            if not key:
                return int(text)
            for line in text.splitlines():
                name, _, value = line.partition(" ")
                if name == key:
                    return int(value)
        return None


def make_group(places: dict[str, Hierarchy], resources: Resources, own_processes: int) -> Group:
    """Groups with the limits of `resources`; `own_processes` of the sandbox itself are allowed on top.

    A controller that cannot be set up is left out of the result, so that the caller falls back for it.
    """
    group = Group()
    name = f"ftagent-{os.getpid()}-{secrets.token_hex(4)}"
    for controller, place in places.items():
        folder = place.folder / name
        try:
            folder.mkdir(exist_ok=True)
            for file, value in _settings(controller, place.version, resources, own_processes):
                # Swap accounting may be off; the limit on memory itself must work.
                with contextlib.suppress(*([OSError] if "sw" in file else [])):
                    (folder / file).write_text(value)
        except OSError:
            if folder not in group.folders.values():
                _remove_group(folder)
            continue
        group.folders[controller] = folder
        group.versions[controller] = place.version
    return group


def _settings(controller: str, version: int, resources: Resources, own: int) -> list[tuple[str, str]]:
    memory = str(resources.memory_mb * 1024 * 1024)
    if controller == "memory" and resources.memory_mb:
        if version == 2:
            return [("memory.max", memory), ("memory.swap.max", "0")]
        return [("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes", memory)]
    if controller == "pids" and resources.processes:
        return [("pids.max", str(resources.processes + own))]
    if controller == "cpu" and resources.cpus:
        if version == 2:
            return [("cpu.max", f"{resources.cpus * 100000} 100000")]
        return [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", str(resources.cpus * 100000))]
    return []


def sweep(places: dict[str, Hierarchy]) -> None:
    """Remove empty groups that dead processes of ours left; a group with members cannot be removed."""
    for folder in {place.folder for place in places.values()}:
        for group in folder.glob("ftagent-*-*"):
            owner = group.name.split("-")[1]
            with contextlib.suppress(OSError):
                old = time.time() - group.stat().st_mtime > STALE_SECONDS
                if owner.isdigit() and old and not Path("/proc", owner).exists():
                    group.rmdir()


def _remove_group(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
