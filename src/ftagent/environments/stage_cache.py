"""Results of stages on disk: one file each, shared by processes, bounded in size, the longest unused ones go first.

A file holds a line of JSON (the header), its SHA-256, then the log and the files one after the other. It appears by
one rename and is read through one descriptor, so nobody sees a part of it and nobody needs a lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from ftagent.core.files import make_folder, temporary_name
from ftagent.core.types import Execution
from ftagent.environments.snapshot import Item, Snapshot

VERSION = 1
MAGIC = b"ftagent-stage %d\n" % VERSION
SUFFIX = ".stage"
MAX_HEADER_BYTES = 64 << 20
STALE_SECONDS = 24 * 3600.0
_PIECE = 1 << 20
OpenFile = Callable[[str], IO[bytes]]


class Damaged(Exception):
    """An entry does not read as what was written."""


@dataclass(frozen=True)
class Entry:
    """A stored result that was read and checked. `files` lie in a folder of the caller's, by number."""

    execution: Execution
    items: Snapshot
    files: dict[str, Path]
    log: Path


class StageCache:
    """Entries in `folder`, at most `limit_bytes` together. Making one touches no disk."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes

    def fetch(self, key: str, target: Path) -> Entry | None:
        """The entry, its files unpacked into the new folder `target`; a damaged one is removed and counts as none.

        Raises OSError when `target` cannot be written.
        """
        path = self._path(key)
        try:
            file = path.open("rb")
        except OSError:
            return None
        with file:
            try:
                header = _header(file, key)
                target.mkdir()
                entry = _unpack(file, header, target)
                os.utime(file.fileno())
                return entry
            except (Damaged, ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)
                return None

    def store(self, key: str, execution: Execution, items: Snapshot, open_file: OpenFile, log: Path) -> bool:
        """Keep a result; False when it is too large or its files are no longer what `items` says. Raises OSError."""
        with log.open("rb") as file:
            logged = Item("file", hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size)
        header = {"key": key, "execution": asdict(execution), "log": asdict(logged),
                  "items": {path: asdict(item) for path, item in items.items()}}  # fmt: skip
        text = json.dumps(header).encode() + b"\n"
        size = len(MAGIC) + len(text) + 32 + sum(item.size for item in (logged, *items.values()))
        if size > self._limit or len(text) > MAX_HEADER_BYTES:
            return False
        make_folder(self._folder)
        temporary = self._folder / temporary_name()
        try:
            with temporary.open("xb") as file:
                file.write(MAGIC + text + hashlib.sha256(text).digest())
                with log.open("rb") as source:
                    whole = _copy(source, file, logged.size) == logged.content
                for path, item in items.items():
                    if item.kind == "file" and whole:
                        with open_file(path) as source:
                            whole = _copy(source, file, item.size) == item.content
            if whole:
                self._make_room(size)
                temporary.replace(self._path(key))
            return whole
        finally:
            temporary.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{SUFFIX}"

    def _make_room(self, size: int) -> None:
        """Remove the longest unused until `size` more fit; also what killed processes left."""
        known: list[tuple[float, int, str]] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(SUFFIX):
                        known.append((status.st_mtime, status.st_size, entry.path))
                    elif entry.name.startswith(".tmp-") and time.time() - status.st_mtime > STALE_SECONDS:
                        os.unlink(entry.path)  # noqa: PTH108 - as it was listed
        total = size + sum(length for _, length, _ in known)
        for _, length, path in sorted(known):
            if total <= self._limit:
                return
            Path(path).unlink(missing_ok=True)
            total -= length


def _header(file: IO[bytes], key: str) -> dict[str, Any]:
    if file.readline(len(MAGIC)) != MAGIC:
        raise Damaged
    text = file.readline(MAX_HEADER_BYTES)
    if hashlib.sha256(text).digest() != file.read(32):
        raise Damaged
    header: dict[str, Any] = json.loads(text)
    if header["key"] != key:
        raise Damaged
    return header


def _unpack(file: IO[bytes], header: dict[str, Any], target: Path) -> Entry:
    items = {path: Item(**values) for path, values in header["items"].items()}
    log, logged = target / "log", Item(**header["log"])
    with log.open("xb") as copy:
        if _copy(file, copy, logged.size) != logged.content:
            raise Damaged
    files: dict[str, Path] = {}
    for number, (path, item) in enumerate(items.items()):
        if item.kind != "file":
            continue
        files[path] = target / str(number)
        with files[path].open("xb") as copy:
            if _copy(file, copy, item.size) != item.content:
                raise Damaged
            if item.executable:
                os.fchmod(copy.fileno(), 0o755)
    if file.read(1):
        raise Damaged
    return Entry(Execution(**header["execution"]), items, files, log)


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> str | None:
    """Copy exactly `size` bytes: their SHA-256, or None when there are fewer."""
    digest = hashlib.sha256()
    while size:
        piece = source.read(min(size, _PIECE))
        if not piece:
            return None
        digest.update(piece)
        target.write(piece)
        size -= len(piece)
    return digest.hexdigest()
