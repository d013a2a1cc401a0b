"""Setting variables in a `.env` file: everything else in it stays, and nobody else may read it afterwards."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

from ftagent.core.errors import RequestError
from ftagent.core.files import atomic_write
from ftagent.settings.dotenv import read

_PLAIN = re.compile(r"[A-Za-z0-9_./:@+,=-]*")
_BEFORE = re.compile(r"(?:[^\S\r\n]*(?:#[^\r\n]*)?(?:\r\n|\n|\r))*")
_COMMENT = re.compile(r"[^\S\r\n]+#[^\r\n'\"]*(?=[\r\n]*$)")
_MARK = "\ufeff"
_OWNER_ONLY = 0o600


def edited(text: str, values: Mapping[str, str]) -> str:
    """`text` of a `.env` with `values` set: in place where a variable is there, else at the end. "" unsets.

    A variable that is there several times is set at each of them; comments stay.
    """
    from dotenv.parser import parse_stream

    end = "\r\n" if "\r\n" in text else "\n"
    parts, missing = [], dict(values)
    for binding in parse_stream(io.StringIO(text, newline="")):
        name, original = (binding.key or "").upper(), binding.original.string
        if binding.error or name not in values:
            parts.append(original)
            continue
        missing.pop(name, None)
        before, comment = _BEFORE.match(original), _COMMENT.search(original)
        parts.append(
            f"{before.group() if before else ''}{name}={_quoted(values[name])}{comment.group() if comment else ''}{end}"
        )
    whole = "".join(parts)
    added = "".join(f"{name}={_quoted(value)}{end}" for name, value in missing.items() if value)
    return whole + (end if added and whole and not whole.endswith(("\n", "\r")) else "") + added


def write(path: Path, values: Mapping[str, str]) -> Path | None:
    """Set `values` in the `.env` at `path`, whole or not at all; returns the copy of what was there before.

    The file may be read by its owner alone afterwards, and by nobody who could not read it before. A link is
    followed. Raises RequestError for a file that cannot be read, and for a value that such a file cannot hold.
    """
    path = path.resolve()
    try:
        exists = path.exists()
        if exists:
            read(path, {})  # refuses what is malformed, with its line
        before = path.read_bytes() if exists else b""
        mode = (path.stat().st_mode & _OWNER_ONLY) if exists else _OWNER_ONLY
        old = before.decode("utf-8")
        mark = _MARK if old.startswith(_MARK) else ""
        new = mark + edited(old.removeprefix(mark), values)
        _check(path, old.removeprefix(mark), new.removeprefix(mark), values)
        if exists and new == old:
            path.chmod(mode)
            return None
        copy = _copy(path, before, mode) if exists else None
        atomic_write(path, new, durable=True, mode=mode)
    except OSError as error:
        raise RequestError(f"{path}: cannot be written ({error.strerror or error})") from error
    return copy


def _copy(path: Path, content: bytes, mode: int) -> Path:
    """The file as it was, beside it, under a name that is free."""
    number = 1
    while (copy := path.with_name(f"{path.name}.backup{'' if number == 1 else f'-{number}'}")).exists():
        number += 1
    atomic_write(copy, content, durable=True, mode=mode)
    return copy


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _check(path: Path, old: str, new: str, values: Mapping[str, str]) -> None:
    """Whoever reads the file must get what was meant. Raises RequestError naming variables, never values."""
    from dotenv.variables import parse_variables

    before, after = _bindings(old), _bindings(new)
    wanted = {**before, **{name: value for name, value in values.items() if value or name in before}}
    wrong = {name for name in {*wanted, *after} if wanted.get(name) != after.get(name)}
    # What looks like ${NAME} would be replaced when the file is read.
    wrong |= {name for name in values if any(atom.resolve({}) != str(values[name]) for atom in
                                             parse_variables(values[name]))}  # fmt: skip
    if wrong:
        raise RequestError(f"{path}: cannot hold the value of {', '.join(sorted(wrong))}; ${{…}} is replaced in it")


def _bindings(text: str) -> dict[str, str | None]:
    from dotenv.parser import parse_stream

    return {b.key.upper(): b.value for b in parse_stream(io.StringIO(text)) if b.key is not None}
