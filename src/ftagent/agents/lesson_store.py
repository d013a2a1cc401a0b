"""The file that lessons lie in: SQLite with full-text search, safe for several processes, set aside when damaged."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ftagent.agents.lessons import Lesson

Note = Callable[[str], None]
_T = TypeVar("_T")
_VERSION = 1
_TABLES = (
    "CREATE TABLE lessons (id INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT UNIQUE, place TEXT, run TEXT, "
    "loop INTEGER, at REAL, scenario TEXT, benchmark TEXT, base_model TEXT, document TEXT)",
    "CREATE INDEX places ON lessons (place)",
    "CREATE INDEX tasks ON lessons (scenario, benchmark, base_model)",
    "CREATE TABLE vectors (lesson INTEGER, model TEXT, vector BLOB, PRIMARY KEY (lesson, model))",
    "CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = 'porter unicode61')",
    "CREATE TRIGGER forgotten AFTER DELETE ON lessons BEGIN DELETE FROM words WHERE rowid = old.id; "
    "DELETE FROM vectors WHERE lesson = old.id; END",
    f"PRAGMA user_version = {_VERSION}",
)
_WAIT_SECONDS = 20.0
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True)
class Stored:
    """A lesson as it lies in the memory. `at`: when it was learned, in seconds since the epoch."""

    id: int
    at: float
    lesson: Lesson


class Damaged(ValueError):
    """What was read is not what was written."""


def stored(row: Sequence[Any]) -> Stored:
    """A row of (id, at, document). Raises Damaged."""
    try:
        return Stored(int(row[0]), float(row[1]), msgspec.json.decode(row[2], type=Lesson))
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise Damaged(f"a lesson does not read: {error}") from error


def transact(
    path: Path, note: Note, work: Callable[[sqlite3.Connection], _T], otherwise: _T, *, write: bool = False
) -> _T:
    """What `work` gives, in one transaction; `otherwise`, and a note, where the memory cannot be used.

    Only `write` makes a file that is not there. A damaged file is set aside; a write then goes into a new one.
    """
    off = "FTAGENT_MEMORY=False turns it off"
    for _ in range(2):
        if not write and not path.exists():
            return otherwise
        try:
            if write:
                path.parent.mkdir(parents=True, exist_ok=True)
            with _opened(path, write) as db:
                return work(db)
        except OSError as error:
            note(f"memory: {path} cannot be used ({error.strerror}); {off}")
            return otherwise
        except (sqlite3.Error, Damaged, UnicodeDecodeError) as error:  # the last from names in a damaged schema
            if isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) not in _DAMAGED:
                note(f"memory: {path} cannot be used ({error}); {off}")
                return otherwise
            try:
                aside = _set_aside(path)
            except OSError as second:
                note(f"memory: {path} is damaged and cannot be set aside ({second.strerror}); {off}")
                return otherwise
            note(f"memory: {path} is damaged ({error}); it is set aside as {aside.name}")
    return otherwise


@contextlib.contextmanager
def _opened(path: Path, write: bool) -> Iterator[sqlite3.Connection]:
    """The database in one transaction, which holds only when the block ends well."""
    db = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
    try:
        db.text_factory = lambda data: data.decode("utf-8", "replace")
        # What is forgotten leaves the file, too.
        db.execute("PRAGMA secure_delete = ON").fetchall()
        db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            # A reader's empty tables are not kept: it does not commit.
            for statement in _TABLES:
                db.execute(statement)
        elif version != _VERSION:
            raise sqlite3.NotSupportedError(f"it has version {version}, this ftagent knows version {_VERSION}")
        yield db
        db.execute("COMMIT" if write else "ROLLBACK")
    finally:
        db.close()


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for end in ("-journal", "-wal", "-shm", ""):
        # A journal left beside a new database would be played into it.
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    return aside
