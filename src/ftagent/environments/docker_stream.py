"""Reading what a container prints, and ending it at a limit, in the event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ftagent.environments.output import Capture

READ_BYTES = 64 * 1024
HEADER_BYTES = 8
MAX_REPORT_BYTES = 64 * 1024
OUTPUT, REPORT = 1, 2
GRACE_SECONDS = 15.0
"""How long after its time limit a container that did not end itself is ended from outside."""


class Frames:
    """Takes the engine's multiplexed stream in pieces: output goes to `output`, process 1's words are kept."""

    def __init__(self, output: Callable[[bytes], None]) -> None:
        self._output = output
        self._header = b""
        self._kind = 0
        self._left = 0
        self.said = bytearray()

    def feed(self, data: bytes) -> None:
        """Raises what `output` raises."""
        while data:
            if not self._left:
                wanted = HEADER_BYTES - len(self._header)
                self._header, data = self._header + data[:wanted], data[wanted:]
                if len(self._header) == HEADER_BYTES:
                    self._kind, self._left = self._header[0], int.from_bytes(self._header[4:], "big")
                    self._header = b""
                continue
            piece, data = data[: self._left], data[self._left :]
            self._left -= len(piece)
            if self._kind == OUTPUT:
                self._output(piece)
            else:
                self.said += piece[: MAX_REPORT_BYTES - len(self.said)]


@dataclass(frozen=True)
class Report:
    """What process 1 of a container told when the command had ended."""

    exit_code: int | None
    """Negative for a signal; None when the command was ended."""
    stopped: str
    """`time` at the time limit, else empty."""
    oom_kills: int | None
    """None where the container cannot see its own control group."""
    peak_bytes: int
    full: tuple[str, ...]
    """Temporary folders without room left."""
    error: str = ""
    """Why the command could not be started at all."""


def read_report(said: bytes) -> Report | None:
    """None when process 1 did not get to tell."""
    values: dict[str, Any] = {}
    for line in said.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            values.update(found)
    if not values:
        return None
    return Report(
        exit_code=values.get("exit-code"),
        stopped=str(values.get("stopped", "")),
        oom_kills=values.get("oom-kills"),
        peak_bytes=int(values.get("peak") or 0),
        full=tuple(str(values.get("full", "")).split()),
        error=str(values.get("error", "")),
    )


class Follow:
    """Follows a started container over its connection until that closes."""

    def __init__(self, connection: Any, capture: Capture) -> None:
        self._socket = connection
        self._frames = Frames(capture.feed)
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[bool] = self._loop.create_future()

    async def until_end(self, time_limit: float) -> bool:
        """True when the container has ended, False when it should have by now. Raises what a listener raises."""
        self._loop.add_reader(self._socket, self._read)
        timer = None
        if time_limit > 0:
            timer = self._loop.call_later(time_limit + GRACE_SECONDS, self._resolve, False)
        try:
            return await self._over
        finally:
            self._loop.remove_reader(self._socket)
            if timer is not None:
                timer.cancel()

    @property
    def said(self) -> bytes:
        """What process 1 wrote."""
        return bytes(self._frames.said)

    def _resolve(self, ended: bool) -> None:
        if not self._over.done():
            self._over.set_result(ended)

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._socket)
            self._resolve(True)
            return
        try:
            self._frames.feed(data)
        except BaseException as error:  # noqa: BLE001 - a listener may raise anything; `execute` raises it again
            self._loop.remove_reader(self._socket)
            if not self._over.done():
                self._over.set_exception(error)
