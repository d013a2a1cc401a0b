"""Reading a command's output and ending it at a limit, in the event loop."""

from __future__ import annotations

import asyncio
import os
import time

from ftagent.core.types import Stage
from ftagent.environments import proctree, sandbox
from ftagent.environments.ending import Stopped
from ftagent.environments.output import Capture
from ftagent.environments.process import Running

READ_BYTES = 64 * 1024
DRAIN_SECONDS = 0.5
"""How long output is still read after the command has ended; a pipe holds 64 KiB, so this is ample."""
WATCH_SECONDS = 0.1


class Watch:
    """For one command; `peak_bytes` is only measured where no control group measures it."""

    def __init__(self, stage: Stage, running: Running, capture: Capture, lacking: list[str]) -> None:
        self._stage = stage
        self._running = running
        self._capture = capture
        self._polls = bool(lacking) or "memory" not in running.group.folders
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[Stopped] = self._loop.create_future()
        self._closed = asyncio.Event()
        self.peak_bytes = 0

    async def until_end(self) -> Stopped:
        """Wait for the end or a limit; at a limit the tree is dead when this returns."""
        handles: list[asyncio.TimerHandle] = []
        self._loop.add_reader(self._running.output, self._read)
        self._loop.add_reader(self._running.exited, self._resolve, "")
        if self._stage.time_limit > 0:
            handles.append(self._loop.call_later(self._stage.time_limit, self._resolve, "time"))
        polling = self._loop.create_task(self._poll()) if self._polls else None
        try:
            stopped = await self._over
            if stopped:
                self._running.kill()
            return stopped
        finally:
            self._loop.remove_reader(self._running.exited)
            self._loop.remove_reader(self._running.output)
            for handle in handles:
                handle.cancel()
            if polling is not None:
                polling.cancel()

    async def drain(self) -> None:
        """Read what is left in the pipe. A process that got away and holds it open does not keep us."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while not self._closed.is_set() and time.monotonic() < deadline:
            try:
                data = os.read(self._running.output, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            self._capture.feed(data)
            await asyncio.sleep(0)

    def _resolve(self, stopped: Stopped) -> None:
        if not self._over.done():
            self._over.set_result(stopped)

    def _read(self) -> None:
        try:
            data = os.read(self._running.output, READ_BYTES)
            if data:
                self._capture.feed(data)
                return
        except BlockingIOError:
            return
        except BaseException as error:  # noqa: BLE001 - a listener may raise anything; `execute` raises it again
            if not self._over.done():
                self._over.set_exception(error)
        self._closed.set()
        self._loop.remove_reader(self._running.output)

    async def _poll(self) -> None:
        """Stands in for control groups that are missing."""
        resources = self._stage.resources
        while True:
            pids = proctree.descendants(self._running.pid)
            self.peak_bytes = max(self.peak_bytes, proctree.resident_bytes(pids))
            if resources.memory_mb and self.peak_bytes > resources.memory_mb * 2**20:
                self._resolve("memory")
            if resources.processes and len(pids) > resources.processes + sandbox.OWN_PROCESSES:
                self._resolve("processes")
            await asyncio.sleep(WATCH_SECONDS)
