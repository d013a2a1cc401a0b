"""The view that a sandboxed command has of the machine, as arguments of bubblewrap (0.8 or later).

System folders, the interpreter and declared inputs read-only; the workspace read-write; everything at its own path, so
that the same command works without a sandbox. Nothing else exists inside: no home, no other run, no answers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ftagent.core.types import Stage

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
# Of /etc what loaders, TLS and name services read; keys (/etc/ssl/private), shadow and host names stay out.
ETC = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime",
    "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ssl/cert.pem", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust/extracted", "/etc/ca-certificates", "/etc/nsswitch.conf", "/etc/mime.types",
    "/etc/protocols", "/etc/services", "/etc/fonts",
)  # fmt: skip
ETC_WITH_NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf")
SYSFS = ("/sys/devices/system/cpu", "/sys/devices/system/node")
# The kernel lets root write these without any capability, whatever user a namespace calls it.
KERNEL_SETTINGS = ("sys", "sysrq-trigger", "pressure", "irq", "bus", "fs", "acpi", "scsi", "mtrr")
GPU_DEVICES = ("nvidia*", "kfd", "dri")
NOBODY = 65534
OWN_PROCESSES = 2
"""Processes of bubblewrap itself: one outside, one as the sandbox's init."""


@dataclass(frozen=True)
class View:
    """What a command may see and touch."""

    workspace: Path
    readable: tuple[Path, ...]
    network: bool
    gpus: bool
    home: Path
    memory_mb: int = 0
    """Bound of what files in memory may hold; 0 is the system's (half of its memory)."""


def interpreter_roots(python: Path) -> tuple[Path, ...]:
    """Folders that `python` needs: its environment, what that is based on, and where its links lead."""
    roots = [python.parent.parent, python.resolve().parent.parent]
    if python == Path(sys.executable):
        roots += map(Path, (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix))
    return tuple(dict.fromkeys(root for root in roots if not _in_system(root)))


def package_folder() -> Path:
    """The folder of the package itself; alone, because beside an editable install lies what must not be seen."""
    return Path(__file__).resolve().parent.parent


def import_roots(python: Path) -> tuple[Path, ...]:
    """Folders for PYTHONPATH: where this package and site packages outside of the interpreter lie."""
    roots = interpreter_roots(python)
    outside = [package_folder().parent] + [
        Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))
    ]
    return tuple(
        dict.fromkeys(
            path for path in outside if not _in_system(path) and not any(path.is_relative_to(root) for root in roots)
        )
    )


def program_folders(python: Path, roots: Iterable[Path]) -> tuple[Path, ...]:
    """Folders of `python` and of `roots`, its import roots; of our own root only the package."""
    package = package_folder()
    imports = [package if root == package.parent else root for root in roots]
    return tuple(dict.fromkeys([*interpreter_roots(python), *imports]))


def input_folders(stage: Stage) -> tuple[Path, ...]:
    """What the mounts of `stage` need."""
    return tuple(path for mount in stage.mounts for path in _with_blobs(Path(mount.source)))


def _with_blobs(source: Path) -> list[Path]:
    # A snapshot in a hub cache holds links into the folder `blobs` beside `snapshots`. No other link is
    # followed: an earlier command may have planted it in a folder that is now an input.
    blobs = source.parent.parent / "blobs"
    return [source, blobs] if source.parent.name == "snapshots" and blobs.is_dir() else [source]


def _in_system(path: Path) -> bool:
    return path == Path("/") or any(path.is_relative_to(folder) for folder in SYSTEM)


def namespace_arguments() -> list[str]:
    """Everything unshared, no capability, dead with its parent. Root becomes nobody inside."""
    uid, gid = os.getuid() or NOBODY, os.getgid() or NOBODY
    return [
        "--unshare-all", "--unshare-user", "--uid", str(uid), "--gid", str(gid), "--cap-drop", "ALL",
        "--disable-userns", "--hostname", "ftagent", "--die-with-parent", "--clearenv",
    ]  # fmt: skip


def arguments(view: View, variables: Mapping[str, str], data: Mapping[str, int]) -> list[str]:
    """bubblewrap's options for `view`. `data`: path inside → descriptor of a made-up file."""
    options = namespace_arguments()
    if view.network:
        options.append("--share-net")
    size = ["--size", str(view.memory_mb << 20)] if view.memory_mb else []
    options += ["--proc", "/proc", "--dev", "/dev", *size, "--tmpfs", "/tmp"]
    options += ["--perms", "1777", *size, "--tmpfs", "/dev/shm"]
    for name in KERNEL_SETTINGS:
        options += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    for folder in SYSTEM:
        if Path(folder).is_symlink():
            options += ["--symlink", os.readlink(folder), folder]  # noqa: PTH115 - the text as it stands
        else:
            options += ["--ro-bind-try", folder, folder]
    for path in (*ETC, *SYSFS, *(ETC_WITH_NETWORK if view.network else ())):
        options += ["--ro-bind-try", path, path]
    for path, descriptor in data.items():
        options += ["--perms", "0644", "--ro-bind-data", str(descriptor), path]
    if view.gpus:
        options += ["--ro-bind-try", "/sys", "/sys"]
        for device in sorted(path for pattern in GPU_DEVICES for path in Path("/dev").glob(pattern)):
            options += ["--dev-bind-try", str(device), str(device)]
    binds = [("--ro-bind", path) for path in view.readable] + [("--bind", view.workspace)]
    # A folder inside another must be bound after it, or it would disappear below it.
    for option, path in sorted(binds, key=lambda bind: len(bind[1].parts)):
        options += [option, str(path), str(path)]
    options += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(view.workspace)]
    for name, value in variables.items():
        options += ["--setenv", name, value]
    return options


def made_up_files(view: View) -> dict[str, str]:
    """Files of /etc that tell nothing of the host."""
    uid, gid = os.getuid() or NOBODY, os.getgid() or NOBODY
    files = {
        "/etc/passwd": f"ftagent:x:{uid}:{gid}:ftagent:{view.home}:/bin/sh\n",
        "/etc/group": f"ftagent:x:{gid}:\n",
    }
    if not view.network:
        files["/etc/hosts"] = "127.0.0.1 localhost ftagent\n::1 localhost ftagent\n"
    return files


def _restriction() -> str:
    """The switch with which some distributions forbid what bubblewrap needs."""
    for switch, forbids in (("apparmor_restrict_unprivileged_userns", "1"), ("unprivileged_userns_clone", "0")):
        with contextlib.suppress(OSError):
            if Path("/proc/sys/kernel", switch).read_text().strip() == forbids:
                return f" (this machine has kernel.{switch}={forbids})"
    return ""


def probe() -> str:
    """Empty when bubblewrap works here, else one line that says why not."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed (`apt install bubblewrap`, `dnf install bubblewrap`)"
    command = [program, *namespace_arguments(), "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    command[-1:] = ["--", "/bin/sh", "-c", "exit 0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, cwd="/")
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not start: {error}"
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return f"bubblewrap is installed and does not work: {why}{_restriction()}"
    return ""
