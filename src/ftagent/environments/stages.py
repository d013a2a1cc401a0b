"""What every environment does around a stage: before its command starts, and when that has ended well."""

from __future__ import annotations

import os
from pathlib import Path

from ftagent.core.errors import EnvironmentUnavailable, StageRefused, StorageFull
from ftagent.core.types import Stage
from ftagent.core.workspace import Workspace
from ftagent.environments.ending import Ending

MAX_ARGUMENT_BYTES = 128 * 1024 - 1
"""Linux takes no longer argument."""
FULL_BYTES = 64 * 1024
"""A disk with less room left is full: what did not fit was larger."""


def absolute(path: Path) -> Path:
    """`path` from the root, its links as they are."""
    return path.absolute()


def refusal(stage: Stage, workspace: Path) -> str:
    """Write the stage's files; why it cannot be started, if that is its own fault.

    Raises EnvironmentUnavailable for a missing input or workspace, StorageFull.
    """
    missing = [f"{mount.name} ({mount.source})" for mount in stage.mounts if not Path(mount.source).exists()]
    if missing:
        raise EnvironmentUnavailable(f"stage {stage.name}: input does not exist: {', '.join(missing)}")
    if not workspace.is_dir():
        raise EnvironmentUnavailable(f"workspace {workspace} does not exist")
    if refused := _impossible(stage):
        return refused
    try:
        Workspace(workspace).write(stage.files)
    except StageRefused as error:
        return f"before the start: {error}"
    return ""


def _impossible(stage: Stage) -> str:
    """Why no system can execute such a command with such variables; empty when it can be tried."""
    if not stage.command:
        return "the command is empty"
    texts = [*stage.command, *(f"{name}={value}" for name, value in stage.variables.items())]
    try:
        sizes = [len(os.fsencode(text)) for text in texts]
    except UnicodeEncodeError:
        return "the command or a variable cannot be encoded"
    if any("\0" in text for text in texts) or any("=" in name or not name for name in stage.variables):
        return "the command contains NUL, or a variable's name is none"
    if max(sizes) > MAX_ARGUMENT_BYTES or sum(sizes) > 8 * MAX_ARGUMENT_BYTES:
        return f"the command has {sum(sizes)} bytes; put what is long into a file"
    return ""


def full_disk(workspace: Path) -> StorageFull | None:
    """The error to raise for a command that failed where the workspace's disk has no room left, else None."""
    try:
        state = os.statvfs(workspace)
    except OSError:
        return None
    if state.f_blocks and state.f_bavail * state.f_frsize < FULL_BYTES:
        return StorageFull(f"{workspace}: no space left on its disk, and the command failed there")
    if state.f_files and not state.f_favail:
        return StorageFull(f"{workspace}: its disk can hold no more files, and the command failed there")
    return None


def without_outputs(stage: Stage, workspace: Path) -> Ending | None:
    """How a command with exit code 0 ended that did not leave what it should; None when all is there."""
    try:
        missing = [name for name in stage.outputs if not Workspace(workspace).exists(name)]
    except StageRefused as error:
        return Ending("failed", 0, None, f"output: {error}")
    if missing:
        names = ", ".join(missing)
        return Ending("failed", 0, None, f"output missing (a plain file or folder is wanted): {names}")
    return None
