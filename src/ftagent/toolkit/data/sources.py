"""Rows of files, with where each of them is; the formats of rows are elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ftagent.toolkit.errors import ToolkitError

Row = dict[str, Any]
Tell = Callable[[int, str, str], None]
"""Told of what cannot be read: number of the row, where it is, what is wrong. It may raise."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Source:
    """Rows in order, with their numbers; `place` says where number N is, for errors.

    Numbers are lines of a JSON Lines file, else they count rows from 1.
    """

    name: str
    rows: Iterator[tuple[int, Row]]
    place: Callable[[int], str]
    csv: bool = False
    tables: bool = False
    """Whether keys that have no value in a row are there all the same, as null."""


def fail(number: int, place: str, text: str) -> None:
    """The Tell of readers that stop at the first fault."""
    raise ToolkitError(f"{place}: {text}")


def json_source(path: Path, tell: Tell) -> Source:
    """JSON Lines, or one JSON list. Raises ToolkitError where the file cannot be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
            if not head.startswith(b"["):
                return Source(str(path), _lines(path, tell), lambda number: f"{path}:{number}")
        return _list(path, tell)
    except OSError as error:
        raise ToolkitError(f"{path}: cannot be read: {error.strerror}") from error


def _lines(path: Path, tell: Tell) -> Iterator[tuple[int, Row]]:
    loads = _decoder().decode
    number = 0
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                try:
                    value = loads(raw.decode("utf-8" if number > 1 else "utf-8-sig"))
                    if type(value) is not dict:
                        tell(number, f"{path}:{number}", f"must be a JSON object, not {type(value).__name__}")
                        continue
                    if b"\\u" in raw and _SURROGATE.search(raw):
                        _refuse_surrogates(value)
                except UnicodeDecodeError as error:
                    tell(number, f"{path}:{number}", f"not UTF-8: {error}")
                    continue
                except (ValueError, RecursionError) as error:
                    if raw.strip():
                        why = _why(error)
                        if isinstance(error, json.JSONDecodeError):
                            # The place in the row; json would call it line 1.
                            why = f"{error.msg} at column {min(error.pos, len(raw.rstrip())) + 1}"
                        tell(number, f"{path}:{number}", f"not JSON: {why}")
                    continue
                yield number, value
    except OSError as error:
        raise ToolkitError(f"{path}: cannot be read: {error.strerror}") from error


def _list(path: Path, tell: Tell) -> Source:
    """A JSON list, read element by element, so that each is known by its line."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ToolkitError(f"{path}: not UTF-8: {error}") from error
    lines: list[int] = []

    def place(number: int) -> str:
        return f"{path}: item {number} (line {lines[number - 1]})" if number <= len(lines) else f"{path}: item {number}"

    return Source(str(path), _elements(text, lines, place, tell, str(path)), place)


def _elements(
    text: str, lines: list[int], place: Callable[[int], str], tell: Tell, name: str
) -> Iterator[tuple[int, Row]]:
    scan = _decoder().raw_decode
    at = _skip(text, _skip(text, 0) + 1)
    line, counted, number = 1, 0, 0
    ended = text[at : at + 1] == "]"
    while not ended:
        number += 1
        line += text.count("\n", counted, at)
        counted = at
        lines.append(line)
        try:
            value, at = scan(text, at)
        except (ValueError, RecursionError) as error:
            # What follows cannot be told from what is broken, so there is nothing to go on with.
            raise ToolkitError(f"{place(number)}: not JSON: {_why(error)}") from error
        if type(value) is not dict:
            tell(number, place(number), f"must be a JSON object, not {type(value).__name__}")
        elif why := _unreadable(value, text, counted, at):
            tell(number, place(number), why)
        else:
            yield number, value
        at = _skip(text, at)
        ended = text[at : at + 1] == "]"
        if not ended:
            if text[at : at + 1] != ",":
                raise ToolkitError(f"{place(number)}: not JSON: no comma or ] after the item")
            at = _skip(text, at + 1)
    if rest := text[_skip(text, at + 1) :]:
        raise ToolkitError(f"{name}: not JSON: {rest[:20]!r} after the end of the list")


def _unreadable(value: Row, text: str, start: int, end: int) -> str:
    if text.find("\\u", start, end) >= 0:
        try:
            _refuse_surrogates(value)
        except ValueError as error:
            return f"not JSON: {_why(error)}"
    return ""


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=refuse_constant)


def refuse_constant(name: str) -> Any:
    """For json's parse_constant: NaN and Infinity. Raises ValueError."""
    raise ValueError(f"{name} is no JSON value; write null, or leave the key out")


def _refuse_surrogates(value: Row) -> None:
    """Half of a character, which no text file and no tokenizer can hold. Raises ValueError."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise ValueError(f"half of a surrogate pair, \\u{code:04x}, stands for no character") from error


def _why(error: BaseException) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def part_of(source: Source, start: int | None, end: int | None) -> Source:
    """The rows from `start`, counted from 0, up to before `end`."""
    return Source(source.name, islice(source.rows, start, end), source.place, source.csv, source.tables)
