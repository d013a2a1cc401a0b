"""Whose a container is, and removing what dead processes of ours left. Nobody else's container is ever touched."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ftagent.core.errors import EnvironmentUnavailable
from ftagent.core.run_folder import RunFolder
from ftagent.core.types import Stage
from ftagent.environments.docker_engine import Engine

OURS = "ftagent"
"""The label that all our containers carry, with value 1."""
OWNER, BOOT, NAMESPACE = "ftagent.owner", "ftagent.boot", "ftagent.pid-namespace"
RUN, LOOP, ATTEMPT, STAGE = "ftagent.run", "ftagent.loop", "ftagent.attempt", "ftagent.stage"


@dataclass(frozen=True)
class Leftover:
    """A container of ours whose owner is dead."""

    name: str
    run: str
    stage: str


def labels(stage: Stage, workspace: Path) -> dict[str, str]:
    """What a container of this process says of itself: run, loop and attempt where `workspace` is a run's."""
    found = {OURS: "1", STAGE: stage.name, OWNER: _life(os.getpid()), BOOT: _boot(), NAMESPACE: _namespace()}
    with contextlib.suppress(ValueError):
        place = RunFolder.place_of(workspace)
        found[RUN] = str(workspace.parents[2])
        found[LOOP] = "baseline" if place.loop is None else str(place.loop)
        if place.step == "code":
            found[ATTEMPT] = str(place.attempt)
    return found


def leftovers(engine: Engine) -> list[Leftover]:
    """Containers of ours whose owner is dead for sure. Raises EnvironmentUnavailable."""
    return [
        Leftover(_name(container), texts.get(RUN, ""), texts.get(STAGE, ""))
        for container in engine.containers(f"{OURS}=1")
        if is_dead(texts := container.get("Labels") or {}, stopped=container.get("State") not in ("running", "paused"))
    ]


def reap(engine: Engine) -> list[Leftover]:
    """Remove `leftovers`; returns those that are gone. Raises EnvironmentUnavailable."""
    removed = []
    for found in leftovers(engine):
        with contextlib.suppress(EnvironmentUnavailable):
            engine.remove(found.name)
            removed.append(found)
    return removed


def is_dead(texts: Mapping[str, str], *, stopped: bool) -> bool:
    """Whether the owner that labels `texts` name is dead. One of another machine or namespace may well live.

    Of an earlier boot only `stopped` containers count: one that runs shows that its machine is another.
    """
    pid = texts.get(OWNER, "").partition(".")[0]
    if texts.get(OURS) != "1" or not pid.isdigit():
        return False
    if texts.get(BOOT) != _boot():
        return stopped
    return texts.get(NAMESPACE) == _namespace() and _life(int(pid)) != texts[OWNER]


def _life(pid: int) -> str:
    """A process and when it began, because numbers are used again; the number alone when it is dead."""
    try:
        # The name, in parentheses, may hold spaces: the fields behind it are counted.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return str(pid)
    return str(pid) if fields[0] == b"Z" else f"{pid}.{fields[19].decode()}"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no path of a file


def _name(container: Mapping[str, object]) -> str:
    names = container.get("Names")
    first = str(names[0]) if isinstance(names, list) and names else str(container.get("Id"))
    return first.removeprefix("/")
