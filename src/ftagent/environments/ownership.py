"""Who owns a workspace while commands of another user work in it.

A container never runs as root. When ftagent does, the workspace's files are given to the user inside for as long as a
command runs, and taken back after it: files stay the user's.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from ftagent.core.errors import EnvironmentUnavailable
from ftagent.environments.threads import uninterrupted
from ftagent.environments.variables import SYSTEM_PATH

MAX_CHECKED = 2000
"""Entries of an input that are looked at; one that is readable so far is taken to be."""


class HandedOver:
    """Workspaces that are lent to user `uid` and group `gid`; does nothing when they are ours."""

    def __init__(self, uid: int, gid: int) -> None:
        self._there = (uid, gid)
        self._here = (os.getuid(), os.getgid())
        self._users: dict[Path, int] = {}

    @contextlib.asynccontextmanager
    async def lent(self, workspace: Path) -> AsyncIterator[None]:
        """Lend `workspace`; the last of several that have it at once gives it back. Raises EnvironmentUnavailable."""
        if self._here[0] != 0 or self._there[0] == 0:
            yield
            return
        self._users[workspace] = self._users.get(workspace, 0) + 1
        try:
            await uninterrupted(give, workspace, *self._there)
            yield
        finally:
            self._users[workspace] -= 1
            if not self._users[workspace]:
                del self._users[workspace]
                # Not in a thread: a cancellation must not come between.
                with contextlib.suppress(EnvironmentUnavailable):
                    give(workspace, *self._here)


def give(folder: Path, uid: int, gid: int) -> None:
    """Make `uid` and `gid` the owner of all in `folder`, and of no link's target. Raises EnvironmentUnavailable.

    By the system's `chown`, which walks with open folders only: nothing that somebody moves or links meanwhile leads
    it out, and no depth is too much for it.
    """
    command = ["chown", "-hRP", f"{uid}:{gid}", "--", str(folder)]
    variables = {"PATH": os.environ.get("PATH", SYSTEM_PATH), "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    errors = [line for line in done.stderr.splitlines() if "No such file" not in line]
    if done.returncode and errors:
        raise EnvironmentUnavailable(f"{folder}: cannot be given to user {uid}, who commands are: {errors[0]}")


def unreadable(source: Path, uid: int) -> Path | None:
    """The first of the entries of `source` that a stranger `uid` cannot read; None where all can be read."""
    pending, checked = [source], 0
    while pending and checked < MAX_CHECKED:
        path = pending.pop()
        checked += 1
        try:
            state = path.lstat()
            if path.is_symlink() or state.st_uid == uid:
                continue
            if path.is_dir():
                if state.st_mode & 0o005 != 0o005:
                    return path
                pending += path.iterdir()
            elif not state.st_mode & 0o004:
                return path
        except OSError:
            continue
    return None
