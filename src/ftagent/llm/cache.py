"""Replies and vectors that were paid for once, kept across runs in one SQLite file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from ftagent.llm.types import ChatReply

_T = TypeVar("_T")
_BUSY_SECONDS = 5.0
_ATTEMPTS = 3


class ReplyCache:
    """Key-value store for several processes. With neither `read` nor `write` it touches nothing.

    It never stops a run: a damaged file is set aside, a file that cannot be used is left alone, each with one line
    to `note`.
    """

    def __init__(self, path: Path, read: bool, write: bool, note: Callable[[str], None]) -> None:
        self._path = path
        self._read = read
        self._write = write
        self._note = note
        self._database: sqlite3.Connection | None = None

    def reply(self, digest: str) -> ChatReply | None:
        """The reply to the request with this SHA-256."""
        return self._find(f"chat {digest}", ChatReply)

    def keep_reply(self, digest: str, reply: ChatReply) -> None:
        """Store a reply, if it is whole: an empty, cut or refused one may be better the next time."""
        if reply.finish_reason == "stop" and reply.content.strip() and not reply.refusal:
            self._store({f"chat {digest}": reply})

    def vectors(self, model: str, texts: Sequence[str]) -> list[list[float] | None]:
        """The embedding of each text, None where it is not known."""
        return [self._find(_embedding_key(model, text), list[float]) for text in texts]

    def keep_vectors(self, model: str, texts: Sequence[str], vectors: Sequence[list[float]]) -> None:
        self._store({_embedding_key(model, text): vector for text, vector in zip(texts, vectors, strict=True)})

    def close(self) -> None:
        """Close the file; it opens again when it is needed."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _find(self, key: str, kind: type[_T]) -> _T | None:
        def find(database: sqlite3.Connection) -> _T | None:
            row = database.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
            try:
                return msgspec.json.decode(row[0], type=kind) if row else None
            except (msgspec.MsgspecError, UnicodeError, TypeError):
                return None  # written by something else: as good as absent, and replaced by the next reply

        return self._with_database(find) if self._read else None

    def _store(self, entries: dict[str, object]) -> None:
        def store(database: sqlite3.Connection) -> None:
            rows = [(key, msgspec.json.encode(value)) for key, value in entries.items()]
            with database:
                database.executemany("INSERT OR REPLACE INTO entries (key, value) VALUES (?, ?)", rows)

        if self._write and entries:
            self._with_database(store)

    def _with_database(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        for attempt in range(_ATTEMPTS):
            try:
                return work(self._open())
            except (sqlite3.OperationalError, OSError) as error:
                self._give_up(error)
                break
            except sqlite3.DatabaseError as error:
                # Another process may have replaced the file already: look again before setting it aside.
                self.close()
                if attempt and not self._set_aside(error):
                    break
        return None

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, check_same_thread=False)
            try:
                # Readers and a writer of several processes at once. Two processes that ask for it together are told
                # that the file is busy: then the other one does it.
                with contextlib.suppress(sqlite3.OperationalError):
                    database.execute("PRAGMA journal_mode = WAL")
                # A cache may lose its last entries in a power cut.
                database.execute("PRAGMA synchronous = NORMAL")
                database.execute("CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
            except BaseException:
                database.close()
                raise
            self._database = database
        return self._database

    def _set_aside(self, error: sqlite3.DatabaseError) -> bool:
        aside = self._path.with_name(f"{self._path.name}.damaged-{os.getpid()}")
        try:
            self._path.replace(aside)
            for ending in ("-wal", "-shm"):
                self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
        except OSError as moving:
            self._give_up(moving)
            return False
        self._note(f"{self._path}: the cache is damaged ({error}); it is now {aside.name}, and a new one is begun")
        return True

    def _give_up(self, error: Exception) -> None:
        self.close()
        self._read = self._write = False
        self._note(f"{self._path}: the cache cannot be used ({error}); this session goes on without it")


def _embedding_key(model: str, text: str) -> str:
    asked = f"{model}\0{text}".encode("utf-8", "replace")
    return f"embedding {hashlib.sha256(asked).hexdigest()}"
