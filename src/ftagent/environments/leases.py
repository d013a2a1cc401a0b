"""Slots and GPUs that several runs on one machine share, without a server.

Each thing is a lock file held with `flock`: the kernel releases it when its holder dies, however it dies. Who waits
holds a ticket, a lock file of its own whose name sorts by time of arrival; nobody overtakes an earlier ticket that
wants one of the same things, so a request for two GPUs is not starved by a stream of requests for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from ftagent.core.errors import EnvironmentUnavailable, RequestError
from ftagent.core.files import storage_error

POLL_SECONDS = 0.05


class Leases:
    """Leases out of `folder`, which all that share must name alike; it is made when needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.asynccontextmanager
    async def hold(self, pool: str, names: Sequence[str], count: int = 1) -> AsyncIterator[tuple[str, ...]]:
        """Wait for `count` of `names` in `pool` (`gpu`, `slot`) and hold them within the `async with`.

        Cancelling gives up the place in the queue. Raises RequestError when there are fewer names than `count`,
        StorageFull or EnvironmentUnavailable when the folder cannot be used.
        """
        if count > len(set(names)):
            raise RequestError(f"{count} of {pool} are asked for and there are {len(set(names))}: {', '.join(names)}")
        held: dict[str, int] = {}
        try:
            await self._acquire(pool, names, count, held)
            yield tuple(held)
        finally:
            for descriptor in held.values():
                os.close(descriptor)

    async def _acquire(self, pool: str, names: Sequence[str], count: int, held: dict[str, int]) -> None:
        try:
            ticket = self._ticket(pool, names)
            try:
                while len(held) < count:
                    if self._is_first(pool, ticket, names):
                        self._take(pool, names, count, held)
                    if len(held) < count:
                        await asyncio.sleep(POLL_SECONDS)
            finally:
                ticket.path.unlink(missing_ok=True)
                os.close(ticket.descriptor)
        except OSError as error:
            full = storage_error(self._folder, error)
            raise full or EnvironmentUnavailable(f"{self._folder}: no locks can be held here: {error}") from error

    def _take(self, pool: str, names: Sequence[str], count: int, held: dict[str, int]) -> None:
        for name in names:
            if len(held) == count:
                return
            if name not in held:
                descriptor = lock_file(self._folder / f"{_safe(pool)}-{_safe(name)}.lock")
                if descriptor is not None:
                    held[name] = descriptor

    def _ticket(self, pool: str, names: Sequence[str]) -> _Ticket:
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            # The clock that all processes of a machine share; leftovers of an earlier boot are unlocked.
            name = f"{_safe(pool)}.{time.monotonic_ns():020d}.{secrets.token_hex(4)}.ticket"
            path = self._folder / name
            descriptor = lock_file(path)
            if descriptor is None:
                continue
            os.write(descriptor, json.dumps(list(names)).encode())
            if os.fstat(descriptor).st_nlink:
                return _Ticket(path, descriptor)
            # Somebody took it for a dead one between its creation and our lock.
            os.close(descriptor)

    def _is_first(self, pool: str, ticket: _Ticket, names: Sequence[str]) -> bool:
        for other in sorted(self._folder.glob(f"{_safe(pool)}.*.ticket")):
            if other.name >= ticket.path.name:
                return True
            try:
                wanted = json.loads(other.read_text() or "null")
                descriptor = lock_file(other, create=False)
            except FileNotFoundError:
                continue
            if descriptor is not None:
                other.unlink(missing_ok=True)
                os.close(descriptor)
            elif wanted is None or set(wanted) & set(names):
                return False
        return True


class _Ticket:
    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor


def lock_file(path: Path, create: bool = True) -> int | None:
    """An open descriptor that holds the lock on `path`, or None when somebody else holds it."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return descriptor


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
