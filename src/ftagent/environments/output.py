"""What a command prints: every line to a listener, head and tail to a log file, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ftagent.core.files import storage_error
from ftagent.core.protocols import OnLine

MAX_LINE_BYTES = 64 * 1024
TAIL_BYTES = 4 * 1024
FLOOD_LINES_PER_SECOND = 100
"""Lines that a listener still gets each second once the output is over its cap; the rest would cost us a core."""


class Capture:
    """Takes the output of one command in pieces.

    The log keeps the first and the last `cap_bytes / 2`; between them one line says how many bytes were dropped.
    The last half is in memory until `close`, at most `cap_bytes` of it.
    """

    def __init__(self, log: Path, on_line: OnLine, cap_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = log
        self._on_line = on_line
        self._half = max(1, cap_bytes // 2)
        self._clock = clock
        self._total = 0
        self._head = 0
        self._ring = bytearray()
        self._last = b""
        self._pending = bytearray()
        self._cut = False
        self._second = -1
        self._in_second = 0
        self._withheld: bytes | None = None
        self.dropped = 0
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._file = log.open("wb", buffering=0)
        except OSError as error:
            raise (storage_error(log, error) or error) from error

    def feed(self, data: bytes) -> None:
        """Raises StorageFull when the log cannot be written, and whatever the listener raises."""
        self._total += len(data)
        self._last = (self._last + data)[-TAIL_BYTES:]
        head = data[: self._half - self._head]
        if head:
            self._write(head)
            self._head += len(head)
        if len(head) < len(data):
            self._ring += data[len(head) :]
            if len(self._ring) > 2 * self._half:
                del self._ring[: len(self._ring) - self._half]
        self._lines(data)

    def close(self) -> None:
        """Write the end of the log. Raises StorageFull."""
        if self._file.closed:
            return
        try:
            if self._withheld is not None:
                # How it ended is what a listener most wants to know.
                self._emit(self._withheld)
                self._withheld = None
            if self._pending and not self._cut:
                self._emit(bytes(self._pending))
                self._pending.clear()
            kept = bytes(self._ring[-self._half :])
            self.dropped = self._total - self._head - len(kept)
            if self.dropped > 0:
                self._write(b"\n[ftagent: %d bytes of output were dropped here]\n" % self.dropped)
            if kept:
                self._write(kept)
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Close the log as it is."""
        self._file.close()

    def tail(self) -> str:
        """The last lines, at most 4 KiB; of a line that was redrawn (carriage returns) the last drawing."""
        last = self._last
        if self._total > len(last) and 0 <= (cut := last.find(b"\n")) < len(last) - 1:
            last = last[cut + 1 :]
        text = "\n".join(_visible(line) for line in last.decode("utf-8", "replace").split("\n"))
        # A byte that is no UTF-8 takes three once it is replaced.
        return text.encode()[-TAIL_BYTES:].decode("utf-8", "ignore")

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError as error:
            raise (storage_error(self._path, error) or error) from error

    def _lines(self, data: bytes) -> None:
        *complete, rest = data.split(b"\n")
        flooded = self._total > 2 * self._half
        if flooded and len(complete) > FLOOD_LINES_PER_SECOND:
            del complete[:-FLOOD_LINES_PER_SECOND]
            self._pending.clear()
            self._cut = False
        for line in complete:
            whole = bytes(self._pending) + line if self._pending else line
            self._pending.clear()
            if self._cut:
                self._cut = False
            elif not flooded or self._may_emit():
                self._withheld = None
                self._emit(whole)
            else:
                self._withheld = whole[: MAX_LINE_BYTES + 1]
        if self._cut:
            return
        self._pending += rest
        if len(self._pending) > MAX_LINE_BYTES:
            redrawn = self._pending.rfind(b"\r", 0, len(self._pending) - 1)
            if redrawn >= 0 and len(self._pending) - redrawn <= MAX_LINE_BYTES:
                del self._pending[:redrawn]
            else:
                self._emit(bytes(self._pending))
                self._pending.clear()
                self._cut = True

    def _may_emit(self) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        return self._in_second <= FLOOD_LINES_PER_SECOND

    def _emit(self, line: bytes) -> None:
        cut = line[:MAX_LINE_BYTES]
        more = " [cut]" if len(line) > MAX_LINE_BYTES else ""
        self._on_line(_visible(cut.decode("utf-8", "replace")) + more)


def _visible(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]
