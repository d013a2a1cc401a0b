"""The broker's socket: made in a folder that untrusted code writes to, and served to a bounded number at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ftagent.core.errors import EnvironmentUnavailable, StageRefused
from ftagent.core.files import storage_error
from ftagent.core.nofollow import FOLDER

if TYPE_CHECKING:
    from aiohttp import web

SOCKET = ".llm.sock"
"""In the workspace."""
BACKLOG = 4096
PAUSE = 0.02
"""Seconds between looks whether there is room for another connection."""
PASSING = frozenset({errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Failures to take a connection that pass."""


class Door:
    """A listening socket in a workspace, for our user alone. The file is gone after `close`."""

    def __init__(self, workspace: Path) -> None:
        """Replaces what a killed session left.

        Raises:
            StageRefused: a folder has the socket's name.
            StorageFull: no space, a read-only file system, or no permission.
            EnvironmentUnavailable: there is no such workspace, or the system makes no socket there.
        """
        self._folder = -1
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._folder = os.open(workspace, FOLDER)
            self._remove()
            os.fchmod(self._listener.fileno(), 0o600)
            # A path of more than 107 bytes is no address; the folder's descriptor makes any path short.
            self._listener.bind(f"/proc/self/fd/{self._folder}/{SOCKET}")
            self._listener.listen(BACKLOG)
        except OSError as error:
            self.close()
            if isinstance(error, IsADirectoryError):
                raise StageRefused(f"`{SOCKET}` is a folder in the workspace; that name is needed") from error
            why = storage_error(workspace / SOCKET, error)
            raise why or EnvironmentUnavailable(f"{workspace / SOCKET}: no socket can be made: {error}") from error

    async def serve(self, server: web.Server, most: int, failed: Callable[[OSError], None]) -> None:
        """Give connections to `server`, `most` at once; others wait in the system's queue. Runs until cancelled.

        `failed` is told when no connection can be taken any more.
        """
        loop = asyncio.get_running_loop()
        while True:
            while len(server.connections) >= most:  # noqa: ASYNC110 - the server tells nobody when one ends
                await asyncio.sleep(PAUSE)
            try:
                connection, _ = await loop.sock_accept(self._listener)
                await loop.connect_accepted_socket(server, connection)
            except OSError as error:
                if error.errno not in PASSING:
                    return failed(error)
                await asyncio.sleep(PAUSE)

    def close(self) -> None:
        """Stop listening and remove the file. May be called twice."""
        self._listener.close()
        if self._folder >= 0:
            with contextlib.suppress(OSError):  # the workspace may be gone, or the name a folder by now
                self._remove()
            os.close(self._folder)
            self._folder = -1

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(SOCKET, dir_fd=self._folder, follow_symlinks=False).st_mode):
                raise IsADirectoryError(SOCKET)
            os.unlink(SOCKET, dir_fd=self._folder)


def connections_for(workers: int) -> int:
    """How many connections to take for `workers` calls at once: a few more, never most of our descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, min(workers + 16, soft // 4))
