"""What a container is made from: the exact body of the engine's request, as a pure function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftagent.core.types import Resources, Stage
from ftagent.environments import sandbox

NOBODY = sandbox.NOBODY
CODE = "/opt/ftagent"
"""Folder inside with what a container gets of us."""
INIT = f"{CODE}/container_init.py"
IMPORTS = f"{CODE}/lib"
PACKAGES = f"{CODE}/packages"
OWN_PROCESSES = 1
"""Process 1 of a container is ours."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SCRATCH_MB = 8192
"""Most that /tmp and /dev/shm hold, each, of a command without memory limit."""


@dataclass(frozen=True)
class Image:
    """An image that is there. `path`: its PATH."""

    name: str
    id: str
    path: str = DEFAULT_PATH


@dataclass(frozen=True)
class EngineFacts:
    """What an engine says of itself, as far as it changes how containers are made."""

    version: str = ""
    cpus: int = 0
    rootless: bool = False
    """It runs as a user: root in a container is that user outside, and nobody else's files can be written."""
    remaps_users: bool = False
    selinux: bool = False


@dataclass(frozen=True)
class Identity:
    """Who a command is in a container."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    @property
    def user(self) -> str:
        return f"{self.uid}:{self.gid}"


def identity_of(uid: int, gid: int, groups: Sequence[int], facts: EngineFacts) -> Identity:
    """The container's user for a host user, so that files stay the user's; nobody for root.

    A rootless engine has one user outside whatever the number inside, who is 0 there.
    """
    if facts.rootless:
        return Identity(0, 0)
    if uid == 0:
        return Identity(NOBODY, NOBODY)
    return Identity(uid, gid, tuple(sorted(set(groups) - {gid, 0})))


def import_roots(packages: Sequence[Path]) -> list[Path]:
    """Folders inside for PYTHONPATH: our toolkit, then `packages`."""
    return [Path(IMPORTS), *(Path(PACKAGES, str(number)) for number in range(len(packages)))]


def container_config(
    stage: Stage,
    workspace: Path,
    image: Image,
    who: Identity,
    facts: EngineFacts,
    variables: Mapping[str, str],
    labels: Mapping[str, str],
    *,
    python: str = "python3",
    packages: Sequence[Path] = (),
) -> dict[str, Any]:
    """The container of one stage. `python`: the image's interpreter. `variables`: all that the command gets."""
    return {
        "Image": image.id,
        "User": who.user,
        "Hostname": "ftagent",
        # Our process 1 goes to the workspace itself, so that it can tell why it cannot.
        "WorkingDir": "/",
        "Entrypoint": [python, "-I", "-S", INIT, f"{stage.time_limit:g}", str(workspace), "--"],
        "Cmd": list(stage.command),
        "Env": [f"{name}={value}" for name, value in variables.items()],
        "Labels": dict(labels),
        "Healthcheck": {"Test": ["NONE"]},
        "Tty": False,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            **_confinement(stage, facts, who),
            **_limits(stage.resources, facts),
            "Mounts": _mounts(stage, workspace, packages),
            "DeviceRequests": _devices(stage.resources),
        },
    }


def gpu_variables(gpus: Sequence[str]) -> dict[str, str]:
    """Variables that make the GPUs `gpus` of the host, and no other, the command's.

    Inside, the GPUs that a container was given are numbered from 0. Images made for CUDA say that they want all; an
    engine whose default runtime is NVIDIA's would give them.
    """
    if not gpus:
        return {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}
    return {"CUDA_VISIBLE_DEVICES": ",".join(str(number) for number in range(len(gpus)))}


def _confinement(stage: Stage, facts: EngineFacts, who: Identity) -> dict[str, Any]:
    security = ["no-new-privileges", *(["label=disable"] if facts.selinux else [])]
    return {
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": security,
        "ReadonlyRootfs": True,
        "NetworkMode": "bridge" if stage.network else "none",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "UsernsMode": "host" if facts.remaps_users else "",
        "GroupAdd": [str(group) for group in who.groups],
        "Init": False,
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": False,
    }


def _limits(resources: Resources, facts: EngineFacts) -> dict[str, Any]:
    memory = resources.memory_mb * 2**20
    scratch_mb = resources.memory_mb or SCRATCH_MB
    cpus = min(resources.cpus, facts.cpus) if facts.cpus else resources.cpus
    return {
        "Memory": memory,
        "MemorySwap": memory,
        "PidsLimit": resources.processes + OWN_PROCESSES if resources.processes else -1,
        "NanoCpus": cpus * 10**9,
        "ShmSize": scratch_mb * 2**20,
        # Compilers of kernels build libraries there and load them.
        "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={scratch_mb}m"},
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
    }


def _devices(resources: Resources) -> list[dict[str, Any]]:
    if not resources.gpus:
        return []
    return [{"Driver": "", "Count": 0, "DeviceIDs": list(resources.gpus), "Capabilities": [["gpu"]], "Options": {}}]


def _mounts(stage: Stage, workspace: Path, packages: Sequence[Path]) -> list[dict[str, Any]]:
    """The workspace and the inputs at their own paths, our code below CODE."""
    package = sandbox.package_folder()
    read_only = {
        Path(INIT): package / "environments" / "container_init.py",
        Path(IMPORTS, "ftagent", "__init__.py"): package / "__init__.py",
        Path(IMPORTS, "ftagent", "toolkit"): package / "toolkit",
        **dict(zip(import_roots(packages)[1:], packages, strict=True)),
        **_inputs(sandbox.input_folders(stage)),
    }
    binds = [_bind(outside, inside, True) for inside, outside in read_only.items() if inside != workspace]
    return [_bind(workspace, workspace, False), *binds]


def _inputs(sources: Iterable[Path]) -> dict[Path, Path]:
    return {source.absolute(): source.absolute() for source in sources}


def _bind(source: Path, target: Path, read_only: bool) -> dict[str, Any]:
    # What is mounted below a read-only folder would stay writable: it is left out.
    options = {"Propagation": "rprivate", "NonRecursive": read_only}
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": str(target),
        "ReadOnly": read_only,
        "BindOptions": options,
    }
