"""What a sandboxed command sees of the machine: nothing that is not listed here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftagent.core.types import Stage
from ftagent.environments import sandbox
from ftagent.environments.local import LocalEnvironment, LocalOptions

LOOK = """
import json, os
def below(path):
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return type(error).__name__
print(json.dumps({
    "top": below("/"),
    "folders": {name: below(name) for name in FOLDERS},
    "host": os.uname().nodename,
    "ids": [os.getuid(), os.getgid(), os.getgroups()],
    "mounts": [line.split()[4:6] for line in open("/proc/self/mountinfo")],
    "files": {name: open(name).read() for name in ("/etc/passwd", "/etc/group")},
    "processes": [name for name in below("/proc") if name.isdigit()],
    "writable": [name for name in WRITABLE if os.access(name, os.W_OK)],
}))
"""
FOLDERS = ["/etc", "/dev", "/sys", "/sys/devices", "/sys/devices/system", "/run", "/var", "/tmp", "/etc/ssl", "/root"]
WRITABLE = ["/", "/etc", "/usr", "/bin", "/dev", "/sys", "/sys/devices/system/cpu", "/proc/sys/kernel/hostname",
            "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern"]  # fmt: skip


@pytest.fixture
async def seen(tmp_path: Path) -> dict[str, Any]:
    if why := sandbox.probe():
        pytest.skip(why)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    lines: list[str] = []
    folders = [*FOLDERS, str(tmp_path), *map(str, tmp_path.parents[:-1])]
    script = f"FOLDERS, WRITABLE = {folders!r}, {WRITABLE!r}\n" + LOOK
    environment = LocalEnvironment(LocalOptions(sandbox="bubblewrap"))
    stage = Stage("look", "debug", ("python", "-c", script), time_limit=30.0)
    done = await environment.execute(stage, workspace, lines.append, tmp_path / "log")
    assert done.ok, done
    found: dict[str, Any] = json.loads(lines[0])
    found["allowed"] = {
        path.parts[1] for path in (workspace, *sandbox.program_folders(environment.options.python, ()))
    } | {Path(name).parts[1] for name in sandbox.SYSTEM}
    return found


def test_only_system_folders_and_what_is_bound_exist(seen: dict[str, Any], tmp_path: Path) -> None:
    assert set(seen["top"]) <= seen["allowed"] | {"etc", "dev", "proc", "sys", "tmp"}
    folders = seen["folders"]
    assert set(folders["/etc"]) <= {Path(name).parts[2] for name in sandbox.ETC} | {"passwd", "group", "hosts"}
    assert set(folders["/etc/ssl"]) <= {"certs", "openssl.cnf", "cert.pem"}
    assert folders["/sys"] == ["devices"]
    assert folders["/sys/devices"] == ["system"]
    assert set(folders["/sys/devices/system"]) <= {"cpu", "node"}
    for name in ("/run", "/var"):
        assert folders[name] == "FileNotFoundError"
    assert set(folders["/dev"]) <= {
        "core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom",
        "zero",
    }  # fmt: skip
    # Of each folder above the workspace only the way to it.
    inside = tmp_path / "workspace"
    for parent in inside.parents[:-1]:
        bound = [path for path in (inside, *sandbox.program_folders(LocalOptions().python, ()))
                 if path.is_relative_to(parent) and path != parent]  # fmt: skip
        assert set(folders[str(parent)]) == {path.relative_to(parent).parts[0] for path in bound}, parent


def test_nothing_tells_who_and_where_it_is(seen: dict[str, Any]) -> None:
    assert seen["host"] == "ftagent"
    assert 0 not in seen["ids"][:2]
    assert len(seen["files"]["/etc/passwd"].splitlines()) == 1
    assert seen["files"]["/etc/passwd"].startswith("ftagent:")
    # bubblewrap's init and the command.
    assert len(seen["processes"]) <= 2


def test_the_system_cannot_be_changed(seen: dict[str, Any]) -> None:
    assert seen["writable"] == []
    writable = {path for path, options in seen["mounts"] if "ro" not in options.split(",")}
    kept = {path for path in writable if not path.startswith(("/proc", "/dev", "/tmp"))}
    assert kept <= {path for path in kept if path.endswith("/workspace")}
