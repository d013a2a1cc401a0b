"""Environments by name, and what `ftagent doctor` asks about them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ftagent.core import hardware
from ftagent.core.errors import RequestError
from ftagent.core.protocols import Environment, OnLine
from ftagent.environments import limits, sandbox
from ftagent.environments.conda import CondaEnvironment, CondaOptions
from ftagent.environments.docker import DockerEnvironment, DockerOptions
from ftagent.environments.docker_image import image_source
from ftagent.environments.local import LocalEnvironment, LocalOptions
from ftagent.environments.own import own_environment

KINDS = ("auto", "local", "docker", "conda")
PLANNED = ("ray",)
LOW_DISK_GB = 5.0


class Described(Environment, Protocol):
    """An environment that can introduce itself."""

    def describe(self) -> str:
        """One line for the run's banner."""
        ...


def create(
    kind: str,
    options: LocalOptions | None = None,
    conda: CondaOptions | None = None,
    on_line: OnLine | None = None,
    docker: DockerOptions | None = None,
) -> Described:
    """The environment `kind`, which tells `on_line` what it has to make before its first command; `auto` is local.

    `module:factory` is somebody's own. Raises RequestError for a name that this version does not have, and where there
    is no conda.
    """
    if ":" in kind:
        return own_environment(kind)
    if kind == "conda":
        return CondaEnvironment(conda or CondaOptions(local=options or LocalOptions()), on_line)
    if kind == "docker":
        return DockerEnvironment(docker or DockerOptions(image_source("llm")), on_line)
    if kind in KINDS:
        return LocalEnvironment(options)
    if kind in PLANNED:
        raise RequestError(f"--env {kind}: this version does not have it yet; there are: {', '.join(KINDS)}")
    raise RequestError(f"--env {kind}: unknown environment; there are: {', '.join(KINDS)}, module:class")


@dataclass(frozen=True)
class Check:
    """One finding about this machine. `hint` says what would help; empty when nothing need be done."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


def checks(folder: Path | None = None) -> list[Check]:
    """What commands can rely on here; `folder` is where runs are written (disk space)."""
    why = sandbox.probe()
    places = limits.discover()
    return [
        Check(
            "sandbox (bubblewrap)",
            not why,
            why or "works: no network unless declared, read-only system",
            why and "without it `local` is no security boundary and scores are not sealed",
        ),
        _group_check("memory", "memory limits are only checked by polling every tenth of a second", places),
        _group_check("pids", "the number of processes is only checked by polling", places),
        _disk_check(folder or Path.cwd()),
        _gpu_check(),
    ]


def _group_check(controller: str, otherwise: str, places: dict[str, limits.Hierarchy]) -> Check:
    place = places.get(controller)
    if place:
        return Check(f"control group: {controller}", True, f"version {place.version} at {place.folder}")
    hint = "run in a systemd user session, or let a container write its own control group"
    return Check(f"control group: {controller}", False, f"not writable; {otherwise}", hint)


def _disk_check(folder: Path) -> Check:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    writable = os.access(folder, os.W_OK)
    detail = f"{free:.1f} GB free at {folder}" + ("" if writable else ", which is not writable")
    hint = "" if writable and free > LOW_DISK_GB else "choose another folder with --log-dir or FT_LOG_PATH"
    return Check("disk", not hint, detail, hint)


def _gpu_check() -> Check:
    found = hardware.gpus()
    if found:
        names = ", ".join(f"{gpu.id}: {gpu.describe()}" for gpu in found)
        return Check("GPU", True, f"{len(found)} NVIDIA; {names}")
    if shutil.which("nvidia-smi") or list(Path("/dev").glob("nvidia*")):
        return Check("GPU", False, "an NVIDIA driver is there and shows no GPU", "run nvidia-smi to see why")
    return Check("GPU", True, "none; training runs on the CPU")
