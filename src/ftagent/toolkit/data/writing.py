"""Rows written to a file of any kind, whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

from ftagent.toolkit.data.formats import Format, Row
from ftagent.toolkit.data.tables import DELIMITERS, JSON_COLUMN, encode_cell
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.files import replaced

Place = Callable[[int], str]
"""Index of a row, from 0 → where it came from, for errors."""


def write_rows(path: Path, rows: Sequence[Row], form: Format, place: Place) -> None:
    """Write rows of one format; the kind of file follows the name. Raises ToolkitError where that cannot be done."""
    write = writer_for(path)
    try:
        with replaced(path) as temporary:
            write(temporary, rows, form, place, path.suffix.lower())
    except OSError as error:
        raise ToolkitError(f"{path}: cannot be written: {error.strerror or error}") from error


def writer_for(path: Path) -> Callable[[Path, Sequence[Row], Format, Place, str], None]:
    """Raises ToolkitError for a name that tells no kind of file, and for a place where no file can be."""
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise ToolkitError(f"{path}: the kind of file is not known; name it {', '.join(_WRITERS)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ToolkitError(f"{path}: not a file in a folder that exists")
    return _WRITERS[suffix]


def _write_json(path: Path, rows: Sequence[Row], form: Format, place: Place, suffix: str) -> None:
    """JSON Lines, or a list with one row a line, so that errors can name lines."""
    before, between, after = ("[\n", ",\n", "\n]\n") if suffix == ".json" else ("", "\n", "\n")
    with path.open("w", encoding="utf-8") as stream:
        stream.write(before)
        for index, row in enumerate(rows):
            stream.write((between if index else "") + _dump(row, place, index))
        stream.write(after)


def _write_csv(path: Path, rows: Sequence[Row], form: Format, place: Place, suffix: str) -> None:
    names = _names(rows)
    with path.open("w", encoding="utf-8", newline="") as stream:
        # All in quotes: no text then depends on what a reader makes of its line breaks.
        writer = csv.writer(stream, delimiter=DELIMITERS[suffix], quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(names)
        for index, row in enumerate(rows):
            plain = json.loads(_dump(row, place, index))
            try:
                writer.writerow([encode_cell(name, plain[name], form) if name in plain else "" for name in names])
            except ValueError as error:
                raise ToolkitError(f"{place(index)}: {error}") from error


def _write_parquet(path: Path, rows: Sequence[Row], form: Format, place: Place, suffix: str) -> None:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    columns, fields = [], []
    for name in _names(rows):
        cells = [row.get(name) for row in rows]
        column = None
        if not any(name in row and row[name] is None for row in rows):
            column = _column(cells, own=name in form.keys or name in form.prompts)
        coded = column is None
        if column is None:
            texts = [_dump(row[name], place, index) if name in row else None for index, row in enumerate(rows)]
            column = pyarrow.array(texts, pyarrow.string())
        columns.append(column)
        fields.append(pyarrow.field(name, column.type, metadata=JSON_COLUMN if coded else None))
    try:
        # A stream of ours: pyarrow's own words for a full disk are its own.
        with path.open("wb") as stream:
            parquet.write_table(pyarrow.Table.from_arrays(columns, schema=pyarrow.schema(fields)), stream)
    except pyarrow.ArrowException as error:
        raise ToolkitError(f"{path}: cannot be written as parquet: {error}") from error


def _column(cells: list[Any], own: bool) -> Any:
    """A column of a type that gives back what went in; None where there is none. `own`: null means absent in it."""
    import pyarrow

    try:
        column = pyarrow.array(cells)
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError, RecursionError):
        return None
    if "struct<>" in str(column.type):
        # Parquet has no columns without values.
        return None
    found = column.to_pylist()
    same = all(
        _text(without_null(back) if own else back) == _text(cell) for back, cell in zip(found, cells, strict=True)
    )
    return column if same else None


def without_null(value: Any) -> Any:
    """Messages without the keys that only other messages have."""
    if not isinstance(value, list):
        return value
    return [
        {key: part for key, part in entry.items() if part is not None} if isinstance(entry, dict) else entry
        for entry in value
    ]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def _names(rows: Sequence[Row]) -> list[str]:
    """Every key, in the order in which they appear."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _dump(value: Any, place: Place, index: int) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        why = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ToolkitError(f"{place(index)}: JSON cannot hold this row: {why}") from error


def _plain(value: Any) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    raise TypeError(f"a value is of type {type(value).__name__}")


_WRITERS = {
    ".json": _write_json, ".jsonl": _write_json, ".csv": _write_csv, ".tsv": _write_csv, ".parquet": _write_parquet,
}  # fmt: skip
