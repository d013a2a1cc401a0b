"""Files that are whole or absent, and folders that say that they are whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MARKER = "complete.json"
"""Written last into a folder: {"fingerprint", "files": {name: sha256}}."""


def write_atomically(path: Path, text: str) -> None:
    """Write `path` so that a reader sees the old text or all of the new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to. It replaces `path` when the block ends, and is gone after an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Hex digest of a JSON value; the order of keys does not matter. What JSON does not know counts as its text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def content_of(folder: Path) -> dict[str, Any]:
    """What tells a model in `folder` from another one there at another time: the hashes of its marker, or the sizes of
    its weights. Nothing where there is no such folder."""
    try:
        return dict(json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return {path.name: path.stat().st_size for path in folder.glob("*.safetensors")}


def mark_complete(folder: Path, identity: str, names: list[str]) -> None:
    """Vouch for files `names` of `folder` as they are now, after they are safely on disk."""
    hashes = {}
    for name in sorted(names):
        with (folder / name).open("rb") as stream:
            os.fsync(stream.fileno())
        hashes[name] = sha256(folder / name)
    write_atomically(folder / MARKER, json.dumps({"fingerprint": identity, "files": hashes}, indent=1) + "\n")


def is_complete(folder: Path, identity: str) -> bool:
    """Whether `folder` was marked for `identity` and every file still is what it was then."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return marker["fingerprint"] == identity and all(
            sha256(folder / name) == digest for name, digest in marker["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
