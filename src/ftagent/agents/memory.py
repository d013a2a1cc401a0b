"""Memory across runs: lessons of finished experiments, found by embedding or by words (BM25).

No trouble with it ever ends a run: it is said in a note, and the run goes on without memory.
"""

from __future__ import annotations

import array
import hashlib
import math
import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from ftagent.agents.lesson_store import Damaged, Note, Stored, stored, transact
from ftagent.agents.lessons import Lesson, Task, lessons_of, one_line, task_of
from ftagent.core.errors import FtagentError, RequestError
from ftagent.core.run_folder import RunFolder
from ftagent.core.state import State
from ftagent.core.types import Brief

FILE_NAME = "memory.sqlite"
_SELECT = "SELECT id, at, document FROM lessons"
_MOST_LESSONS = 10_000
_CANDIDATES = 200
_MOST_TERMS = 60
_LINE = 600
_OTHER_BENCHMARK = 2


@dataclass(frozen=True)
class Query:
    """What is asked for. Lessons of `task` come first; those of the run in folder `run` are left out."""

    text: str
    task: Task
    run: Path | None = None


@dataclass(frozen=True)
class Embedder:
    """An embedding model: `embed` gives one vector per text. Raises FtagentError when it cannot."""

    model: str
    embed: Callable[[Sequence[str]], Sequence[Sequence[float]]]


def _silent(text: str) -> None: ...


def memory_path(files_path: Path) -> Path:
    """Where the memory lies below FT_FILE_PATH."""
    return files_path / FILE_NAME


def remember(path: Path, state: State, run: RunFolder, note: Note = _silent) -> int:
    """Store the lessons of a run, and forget those of loops that it took back. Returns how many are new.

    Calling it again stores nothing twice; a fork's copied loops are its origin's lessons already.
    """
    if state.created is None:
        return 0
    try:
        task = task_of({**run.read_record().get("request", {}), "scenario": state.created.scenario})
        lessons = lessons_of(state, task, run.name)
    except RequestError as error:
        note(f"memory: nothing is kept of this run: {error}")
        return 0
    rows = {_digest(lesson, state.started_at): lesson for lesson in lessons}
    return transact(path, note, lambda db: _store(db, str(run.path.resolve()), rows), 0, write=True)


def recall(path: Path, query: Query, k: int = 5, embed: Embedder | None = None, note: Note = _silent) -> list[str]:
    """The `k` most relevant lessons as lines of text, best first.

    Those of the same task come first, then the same benchmark, then the scenario, then others; within each by the
    cosine of their embeddings where there is an embedder, else by BM25. What lies further off than the benchmark
    must share words with the query, or an embedder must have ranked it.
    """
    empty: tuple[list[Stored], dict[int, float]] = ([], {})
    candidates, matches = transact(path, note, lambda db: _candidates(db, query), empty)
    relevance, far = matches, _OTHER_BENCHMARK
    if embed is not None and candidates:
        try:
            relevance, far = _similarities(path, query.text, candidates, embed, note), _OTHER_BENCHMARK + 1
        except FtagentError as error:
            note(f"memory: lessons are found by words alone: {error}")
    ranked = sorted(
        (_distance(item.lesson.task, query.task), -relevance.get(item.id, 0.0), not item.lesson.informative, -item.id)
        for item in candidates
        if item.id in matches or _distance(item.lesson.task, query.task) < far
    )
    by_id = {item.id: item.lesson for item in candidates}
    lines: dict[str, str] = {}
    for *_, negative in ranked:
        lesson = by_id[-negative]
        # The same change on the same task is told once, by its best place.
        lines.setdefault(f"{lesson.task}\n{lesson.change()}", one_line(lesson.text(), _LINE))
    return list(lines.values())[:k]


def lessons_for(
    path: Path, task: Task, brief: Brief, run: Path | None = None, k: int = 5,
    embed: Embedder | None = None, note: Note = _silent,
) -> tuple[str, ...]:  # fmt: skip
    """What a new run is told at its start. The caller records it, so that resume and replay see the same."""
    names = " ".join(parameter.name for parameter in brief.space)
    text = f"{task} {brief.goal} {brief.data} {brief.metric} {names}"
    return tuple(recall(path, Query(text, task, run), k, embed, note))


def find(path: Path, text: str = "", limit: int = 50, note: Note = _silent) -> list[Stored]:
    """What is stored: the newest first, or with `text` what shares words with it, best first."""

    def read(db: sqlite3.Connection) -> list[Stored]:
        if not text.strip():
            return [stored(row) for row in db.execute(f"{_SELECT} ORDER BY id DESC LIMIT ?", (limit,))]
        order = sorted(_matches(db, text, limit).items(), key=lambda pair: (-pair[1], -pair[0]))
        return [stored(row) for found, _ in order for row in db.execute(f"{_SELECT} WHERE id = ?", (found,))]

    return transact(path, note, read, [])


def count(path: Path, run: str | None = None, note: Note = _silent) -> int:
    """How many lessons are stored, of all runs or of those with that name or folder."""
    where, values = _of_run(run)
    return transact(path, note, lambda db: _number(db, f"SELECT count(*) FROM lessons{where}", values), 0)


def clear(path: Path, run: str | None = None, note: Note = _silent) -> int:
    """Forget everything, or the lessons of runs with that name or folder. Returns how many."""
    where, values = _of_run(run)

    def forget(db: sqlite3.Connection) -> int:
        number = db.execute(f"DELETE FROM lessons{where}", values).rowcount
        # The index marks what is deleted; merging it removes the words themselves.
        db.execute("INSERT INTO words (words) VALUES ('optimize')")
        return number

    return transact(path, note, forget, 0, write=True) if path.exists() else 0


def _of_run(run: str | None) -> tuple[str, tuple[str, ...]]:
    return ("", ()) if run is None else (" WHERE run = ? OR place = ?", (run, str(Path(run).resolve())))


def _number(db: sqlite3.Connection, statement: str, values: Sequence[str]) -> int:
    return int(db.execute(statement, values).fetchone()[0])


def _digest(lesson: Lesson, started: float) -> str:
    # Without the run's name: a fork has its origin's start and its origin's loops under another name.
    content = msgspec.json.encode(replace(lesson, run=""))
    return hashlib.sha256(content + repr(started).encode()).hexdigest()


def _store(db: sqlite3.Connection, place: str, rows: Mapping[str, Lesson]) -> int:
    known = {digest for (digest,) in db.execute("SELECT digest FROM lessons WHERE place = ?", (place,))}
    db.executemany("DELETE FROM lessons WHERE digest = ?", [(digest,) for digest in known - rows.keys()])
    new = 0
    for digest, lesson in rows.items():
        task = lesson.task
        values = (digest, place, lesson.run, lesson.loop, time.time(), task.scenario, task.benchmark, task.base_model)
        inserted = db.execute(
            "INSERT OR IGNORE INTO lessons (digest, place, run, loop, at, scenario, benchmark, base_model, document) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, msgspec.json.encode(lesson).decode()),
        )
        if inserted.rowcount:
            db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (inserted.lastrowid, lesson.words()))
            new += 1
    db.execute("DELETE FROM lessons WHERE id <= (SELECT max(id) FROM lessons) - ?", (_MOST_LESSONS,))
    return new


def _distance(task: Task, asked: Task) -> int:
    """0: the same task; 1: the same benchmark, whatever its settings and the model; 2: the scenario; 3: another."""
    if task == asked:
        return 0
    if task.scenario != asked.scenario:
        return 3
    return 1 if task.benchmark.split("?")[0] == asked.benchmark.split("?")[0] else _OTHER_BENCHMARK


def _candidates(db: sqlite3.Connection, query: Query) -> tuple[list[Stored], dict[int, float]]:
    """What is worth ranking: the newest of the task and of the scenario, and what shares words with the query."""
    task, place = query.task, str(query.run.resolve()) if query.run else ""
    matches = _matches(db, query.text, _CANDIDATES)
    conditions: list[tuple[str, tuple[Any, ...]]] = [
        ("scenario = ? AND benchmark = ? AND base_model = ?", (task.scenario, task.benchmark, task.base_model)),
        ("scenario = ?", (task.scenario,)),
        (f"id IN ({', '.join('?' * len(matches))})", tuple(matches)),
    ]
    found: dict[int, Stored] = {}
    for condition, values in conditions:
        statement = f"{_SELECT} WHERE place != ? AND {condition} ORDER BY id DESC LIMIT {_CANDIDATES}"
        found.update((row[0], stored(row)) for row in db.execute(statement, (place, *values)) if row[0] not in found)
    return list(found.values()), matches


def _matches(db: sqlite3.Connection, text: str, limit: int) -> dict[int, float]:
    """Lesson id → relevance (BM25, the more the better) of what shares words with `text`."""
    terms = list(dict.fromkeys(re.findall(r"[^\W_]+", text.lower())))[:_MOST_TERMS]
    if not terms:
        return {}
    # Quoted, a term is a term: no operator of the full-text syntax can come from a text.
    expression = " OR ".join(f'"{term}"' for term in terms)
    rows = db.execute(
        "SELECT rowid, bm25(words) FROM words WHERE words MATCH ? ORDER BY bm25(words) LIMIT ?", (expression, limit)
    )
    return {row: -float(score) for row, score in rows}


def _similarities(path: Path, text: str, candidates: Sequence[Stored], embed: Embedder, note: Note) -> dict[int, float]:
    """Lesson id → cosine to `text`. Vectors that are missing are made and kept. Raises FtagentError."""
    none: dict[int, Sequence[float]] = {}
    known = transact(path, note, lambda db: _vectors(db, embed.model, [item.id for item in candidates]), none)
    missing = [item for item in candidates if item.id not in known]
    # Outside of a transaction: other runs need not wait for a model.
    asked, *made = embed.embed([text, *(item.lesson.words() for item in missing)])
    if len(made) != len(missing):
        raise FtagentError(f"{embed.model} gave {len(made) + 1} vectors for {len(missing) + 1} texts")
    if missing:
        rows = [(item.id, embed.model, array.array("f", vector)) for item, vector in zip(missing, made, strict=True)]
        keep = "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)"
        packed = [(id_, model, vector.tobytes()) for id_, model, vector in rows]
        transact(path, note, lambda db: db.executemany(keep, packed).rowcount, 0, write=True)
        known = {**known, **{id_: vector for id_, _, vector in rows}}
    return {item.id: _cosine(asked, known[item.id]) for item in candidates}


def _vectors(db: sqlite3.Connection, model: str, ids: Sequence[int]) -> dict[int, Sequence[float]]:
    marks = ", ".join("?" * len(ids))
    rows = db.execute(f"SELECT lesson, vector FROM vectors WHERE model = ? AND lesson IN ({marks})", (model, *ids))
    found: dict[int, Sequence[float]] = {}
    for lesson, blob in rows:
        vector = array.array("f")
        try:
            vector.frombytes(blob)
        except (ValueError, TypeError) as error:
            raise Damaged(f"a vector does not read: {error}") from error
        found[lesson] = vector
    return found


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    if len(one) != len(other):
        return 0.0
    norm = math.sqrt(sum(x * x for x in one) * sum(x * x for x in other))
    value = sum(x * y for x, y in zip(one, other, strict=True)) / norm if norm else 0.0
    return value if math.isfinite(value) else 0.0
