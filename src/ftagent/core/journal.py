"""The append-only event log of a run: its only source of truth.

One JSON object a line, ending in the CRC-32 of all bytes before it:

    {"v":1,"sequence":3,"at":…,"elapsed":…,"event":"proposed","data":{…},"crc32":"89abcdef"}

A write that was cut short leaves a last line without newline. It was never acknowledged, so it is cut off
before the next append. Anything else that does not read as written is damage: it is reported with its line and
never repaired in passing, because dropping a record in the middle would silently change what a run claims.
"""

from __future__ import annotations

import errno
import os
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ftagent.core.errors import JournalDamaged, RequestError, StorageFull
from ftagent.core.events import EVENT_NAMES, EVENT_TYPES, Coded, Event, LoopStarted, Record, Scored
from ftagent.core.failpoints import Failpoint
from ftagent.core.files import STORAGE_ERRNOS, atomic_write, sync_folder, write_all

VERSION = 2
_MARK = b',"crc32":"'
_TAIL = len(_MARK) + 8 + 2  # eight hexadecimal digits, a quote and a brace
_FULL = STORAGE_ERRNOS | {errno.EFBIG}
# Always followed by the event that ends their step, which makes them durable too.
_UNSYNCED = (Coded, LoopStarted, Scored)


class _Line(msgspec.Struct):
    v: int
    sequence: int
    at: float
    elapsed: float
    event: str
    data: msgspec.Raw


@dataclass(frozen=True)
class Contents:
    """A journal as read. `length` bytes are whole records; `torn` bytes after them are a write cut short."""

    records: list[Record]
    length: int
    torn: int
    unterminated: bool = False
    """The last record is whole but for its newline."""


def encode(record: Record) -> bytes:
    """One journal line, newline included."""
    head = {
        "v": VERSION,
        "sequence": record.sequence,
        "at": record.at,
        "elapsed": record.elapsed,
        "event": EVENT_NAMES[type(record.event)],
        "data": record.event,
    }
    body = msgspec.json.encode(head)[:-1]
    return b'%s%s%08x"}\n' % (body, _MARK, zlib.crc32(body))


def decode(line: bytes) -> Record:
    """The record of one line without its newline. Raises ValueError saying what is wrong."""
    body, end = line[:-_TAIL], line[-_TAIL:]
    if not end.startswith(_MARK) or not end.endswith(b'"}'):
        raise ValueError("no checksum")
    if end[len(_MARK) : -2] != b"%08x" % zlib.crc32(body):
        raise ValueError("checksum differs")
    try:
        head = msgspec.json.decode(body + b"}", type=_Line)
        if head.v > VERSION:
            raise ValueError(f"version {head.v} of a newer ftagent")
        kind = EVENT_TYPES.get(head.event)
        if kind is None:
            raise ValueError(f"unknown event {head.event!r}")
        event: Any = msgspec.json.decode(head.data, type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    return Record(head.sequence, head.at, head.elapsed, event)


def read(path: Path) -> Contents:
    """All records of a journal.

    Raises JournalDamaged naming the first line that is not as written, RequestError when it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: the journal cannot be read ({error.strerror})") from error
    lines = data.split(b"\n")
    tail = lines.pop()
    records = []
    for number, line in enumerate(lines, start=1):
        records.append(_checked(path, number, line))
    length = len(data) - len(tail)
    if tail and (whole := _whole_record(tail)):
        if whole != len(tail):
            raise JournalDamaged(str(path), len(lines) + 1, "newline missing after a whole record")
        records.append(_checked(path, len(lines) + 1, tail))
        return Contents(records, len(data), 0, unterminated=True)
    return Contents(records, length, len(tail))


def read_records(path: Path) -> list[Record]:
    """All whole records of a journal; see `read`."""
    return read(path).records


def _checked(path: Path, number: int, line: bytes) -> Record:
    try:
        record = decode(line)
        if record.sequence != number:
            raise ValueError(f"sequence {record.sequence} where {number} belongs")
    except ValueError as error:
        raise JournalDamaged(str(path), number, str(error)) from error
    return record


def _whole_record(tail: bytes) -> int:
    """Length of the whole record that `tail` starts with; 0 where it starts with none."""
    at = tail.find(_MARK)
    while at >= 0:
        end = at + _TAIL
        if tail[at + len(_MARK) : end - 2] == b"%08x" % zlib.crc32(tail[:at]) and tail[end - 2 : end] == b'"}':
            return end
        at = tail.find(_MARK, at + 1)
    return 0


class Journal:
    """The single writer of a journal; whoever makes one holds the run's lock.

    Opening reads everything; a torn tail is cut off before the first append. `torn` tells how many bytes that is.
    """

    def __init__(self, path: Path, failpoint: Failpoint | None = None) -> None:
        contents = read(path) if path.exists() else Contents([], 0, 0)
        self.path = path
        self.records = contents.records
        self.torn = contents.torn
        self._failpoint = failpoint or Failpoint.from_environment()
        self._length = contents.length
        self._unterminated = contents.unterminated
        self._elapsed_before = contents.records[-1].elapsed if contents.records else 0.0
        self._opened = time.monotonic()
        self._descriptor: int | None = None

    @property
    def elapsed(self) -> float:
        """Seconds of wall-clock that the run has used, earlier sessions included."""
        return self._elapsed_before + time.monotonic() - self._opened

    def append(self, event: Event) -> Record:
        """Record `event`. Raises StorageFull, with the journal as it was, when it cannot be written."""
        sequence = len(self.records) + 1
        record = Record(sequence, round(time.time(), 3), round(self.elapsed, 3), event)
        self._failpoint.die("before", sequence)
        self._write(encode(record), sequence, sync=not isinstance(event, _UNSYNCED))
        self._failpoint.die("after", sequence)
        self.records.append(record)
        return record

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, line: bytes, sequence: int, sync: bool) -> None:
        try:
            descriptor = self._open()
            if self._failpoint.here("torn", sequence):
                os.write(descriptor, line[: len(line) // 2])
                self._failpoint.die("torn", sequence)
            write_all(descriptor, line)
            if sync:
                os.fdatasync(descriptor)
        except OSError as error:
            if self._descriptor is not None:
                os.ftruncate(self._descriptor, self._length)
            if error.errno in _FULL:
                raise StorageFull(f"{self.path}: {error.strerror}; free some space, then resume") from error
            raise
        self._length += len(line)

    def _open(self) -> int:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, 0o644)
            self._descriptor = descriptor
            os.ftruncate(descriptor, self._length)
            if self._unterminated:
                self._length += os.write(descriptor, b"\n")
                self._unterminated = False
            if not self._length:
                sync_folder(self.path.parent)
        return self._descriptor


def repair(path: Path) -> tuple[int, int]:
    """Cut a damaged journal before its first bad line, keeping the original beside it as `.damaged`.

    Returns (records kept, bytes cut). An undamaged journal is left alone: (records, 0).
    """
    try:
        return len(read(path).records), 0
    except JournalDamaged as damage:
        data = path.read_bytes()
        keep = b"".join(line + b"\n" for line in data.split(b"\n")[: damage.line - 1])
    backup = path.with_name(path.name + ".damaged")
    number = 1
    while backup.exists():
        number += 1
        backup = path.with_name(f"{path.name}.damaged-{number}")
    backup.write_bytes(data)
    atomic_write(path, keep)
    return keep.count(b"\n"), len(data) - len(keep)
