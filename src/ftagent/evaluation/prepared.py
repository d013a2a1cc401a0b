"""Rows that stages mount, kept under FT_FILE_PATH by their content: written once, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from ftagent.core.errors import RequestError


def prepared_file(files_path: Path, name: str, text: str, version: str = "") -> Path:
    """The file with `text`; a new `version` of its format makes another one. Raises RequestError."""
    digest = hashlib.sha256(f"{version}{text}".encode()).hexdigest()[:16]
    target = files_path / "datasets" / "prepared" / f"{name}-{digest}.jsonl"
    try:
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=target.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(target)
    except OSError as error:
        raise RequestError(f"FT_FILE_PATH: {target.parent} cannot be written: {error.strerror}") from error
    return target
