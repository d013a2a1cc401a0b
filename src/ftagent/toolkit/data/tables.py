"""Rows of tables: CSV, TSV and parquet. A cell that is empty is a key that the row does not have."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftagent.toolkit.data.formats import ID_KEYS, Format
from ftagent.toolkit.data.sources import Row, Source, Tell, refuse_constant
from ftagent.toolkit.errors import ToolkitError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_COLUMN = {b"ftagent": b"json"}
"""Metadata of a parquet column whose texts are JSON, because no type of a column can hold its values."""
_LISTS = ("messages", "conversations", "conversation_pair", "history")
_MESSAGE_TEXTS = frozenset(("prompt", "question", "problem", "completion", "chosen", "rejected"))
"""Columns of texts of which some formats make lists of messages."""
_JSON_BEGINS = frozenset('"[{-0123456789tfn')


def csv_source(path: Path, tell: Tell) -> Source:
    """Rows by the names of the first line; cells are texts, but for lists of messages, which are JSON."""
    lines: list[int] = []

    def place(number: int) -> str:
        return f"{path}: row {number} (line {lines[number - 1]})" if number <= len(lines) else f"{path}: row {number}"

    return Source(str(path), _csv_rows(path, lines, place, tell), place, csv=True, tables=True)


def _csv_rows(path: Path, lines: list[int], place: Any, tell: Tell) -> Iterator[tuple[int, Row]]:
    with _csv_cells(path) as reader:
        header = next(reader, None)
        if not header or not any(header):
            raise ToolkitError(f"{path}: has no rows")
        if doubled := {name for name in header if header.count(name) > 1}:
            raise ToolkitError(f"{path}:1: has two columns {min(doubled)!r}; rename one")
        before = reader.line_num
        for cells in reader:
            # A row begins on the line after the end of the one before it.
            line, before = before + 1, reader.line_num
            if not cells:
                continue
            lines.append(line)
            number = len(lines)
            if len(cells) != len(header):
                tell(number, place(number), f"has {len(cells)} cells, and the first line names {len(header)} columns")
                continue
            row: Row = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            try:
                for name in _LISTS:
                    if name in row:
                        row[name] = json.loads(row[name], parse_constant=refuse_constant)
            except (ValueError, RecursionError):
                tell(number, place(number), f'column "{name}" must be a JSON list, as `ftagent data convert` writes it')
                continue
            yield number, row


@contextmanager
def _csv_cells(path: Path) -> Iterator[Any]:
    """A csv.reader. Cells may be as long as they like: Python's limit is set aside for as long as it reads."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield (reader := csv.reader(stream, delimiter=DELIMITERS[path.suffix.lower()], strict=True))
    except UnicodeDecodeError as error:
        raise ToolkitError(f"{path}: not UTF-8 after line {reader.line_num}: {error.reason}") from error
    except csv.Error as error:
        raise ToolkitError(f"{path}:{reader.line_num}: not CSV: {error}") from error
    except OSError as error:
        raise ToolkitError(f"{path}: cannot be read: {error.strerror}") from error
    finally:
        csv.field_size_limit(limit)


def decode_cells(row: Row, form: Format) -> Row:
    """The row with what its cells mean: texts of the format as they are, others JSON where they are exactly that."""
    for key, cell in row.items():
        if type(cell) is str and cell[0] in _JSON_BEGINS and key not in ID_KEYS:
            if key not in form.texts:
                row[key] = _cell(cell)
            elif key in _MESSAGE_TEXTS:
                row[key] = _message_cell(cell)
    return row


def _message_cell(text: str) -> Any:
    """A text, or the list of messages that it is."""
    if text[0] != "[":
        return text
    value = _cell(text)
    return value if isinstance(value, list) and value and all(isinstance(part, dict) for part in value) else text


def _cell(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict | list):
        return value
    # 3.10, 007 or 1e999 would not come back as they are.
    exact = not (isinstance(value, float) and not math.isfinite(value)) and _dump(value) == text
    return value if exact else text


def encode_cell(key: str, value: Any, form: Format) -> str:
    """The text of which `decode_cells` makes `value`. Raises ValueError where there is none."""
    if key in ID_KEYS or key in form.texts:
        if isinstance(value, str):
            return value
        # Reading makes texts of numeric ids and answers, too.
        if type(value) is int or (type(value) is float and key not in ID_KEYS):
            return _dump(value)
        if key in form.texts & _MESSAGE_TEXTS and isinstance(value, list):
            return _dump(value)
        raise ValueError(f'key "{key}" is no text, as it must be in a CSV file')
    if isinstance(value, str) and value and (value[0] not in _JSON_BEGINS or _cell(value) is value):
        return value
    return _dump(value)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def parquet_source(path: Path, tell: Tell) -> Source:
    """Rows of a parquet file, numbered from 1."""
    return Source(str(path), _parquet_rows(path), lambda number: f"{path}: row {number}", tables=True)


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            coded = [field.name for field in schema if (field.metadata or {}).items() >= JSON_COLUMN.items()]
            number = 0
            for batch in file.iter_batches(batch_size=4096):
                for given in batch.to_pylist():
                    number += 1
                    row = present(given)
                    for name in coded:
                        if name in row:
                            row[name] = json.loads(row[name])
                    yield number, row
    except OSError as error:
        raise ToolkitError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (pyarrow.ArrowException, ValueError) as error:
        raise ToolkitError(f"{path}: not a parquet file that can be read: {error}") from error


def present(row: Row) -> Row:
    """The row without what a table has no value for."""
    return {key: value for key, value in row.items() if value is not None and value == value}
