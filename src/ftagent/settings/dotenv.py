"""Finding and reading `.env`. Light: commands that only read runs use it without the settings classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ftagent.core.errors import RequestError

DEFAULT_NAME = ".env"


def find(name: str | None, start: Path) -> Path | None:
    """The file to read: `name` as given, else `.env` in `start` or the nearest folder above it.

    Raises RequestError when a named file does not exist.
    """
    if name is not None:
        path = Path(name)
        try:
            found, what = path.is_file(), "is no file" if path.exists() else "does not exist"
        except OSError as error:
            found, what = False, f"cannot be opened ({error.strerror})"
        if not found:
            raise RequestError(f"{name}: this file of settings {what}; --env-file needs a readable file")
        return path
    for folder in (start, *start.parents):
        # A folder called .env is a common name of virtual environments.
        if (folder / DEFAULT_NAME).is_file():
            return folder / DEFAULT_NAME
    return None


def read(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a `.env` file, names in upper case; `${NAME}` is replaced from `environ` and the file.

    A name without `=` is left out. Raises RequestError naming the line where the file is malformed.
    """
    from dotenv.parser import parse_stream
    from dotenv.variables import parse_variables

    try:
        with path.open(encoding="utf-8-sig") as stream:
            bindings = list(parse_stream(stream))
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error
    values: dict[str, str] = {}
    for binding in bindings:
        if binding.error:
            line = binding.original.string.strip().splitlines()[0][:40]
            shown = line.split("=")[0].strip() or "="
            raise RequestError(
                f"{path}:{binding.original.line}: cannot be read at {shown!r}; write NAME=value, quotes closed"
            )
        if binding.key is None or binding.value is None:
            continue
        known = {**values, **environ}
        value = "".join(atom.resolve(known) for atom in parse_variables(binding.value))
        values[binding.key.upper()] = value
    return values
