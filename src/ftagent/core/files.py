"""Atomic writes: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from ftagent.core.errors import StorageFull

STORAGE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""What the operating system says when a place cannot hold what should be recorded."""


def encode(data: bytes | str) -> bytes:
    """UTF-8. A lone surrogate, which JSON from a model may hold, becomes `?`."""
    return data if isinstance(data, bytes) else data.encode("utf-8", "replace")


def storage_error(path: Path | str, error: OSError) -> StorageFull | None:
    """The error to raise from `error` when it means that `path` cannot be recorded, else None."""
    if error.errno not in STORAGE_ERRNOS:
        return None
    return StorageFull(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}")


def temporary_name() -> str:
    """A fresh name of 25 characters for a file that will be renamed; it starts with `.tmp-`."""
    return f".tmp-{secrets.token_hex(10)}"


def atomic_write(path: Path, data: bytes | str, *, durable: bool = False, mode: int = 0o666) -> None:
    """Replace `path` by `data` in one step: a temporary file beside it, then a rename.

    With `durable` file and folder are on disk (fsync) before this returns. The umask narrows `mode`, which holds
    from the first byte on. The folder must exist. After a failure `path` is as it was and the temporary file is gone.

    Raises:
        StorageFull: no space, a read-only file system, or no permission.
        OSError: any other failure, for example a missing folder.
    """
    content = encode(data)
    temporary = path.with_name(temporary_name())
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - the rename that never follows and never fails half-way
        if durable:
            sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and (full := storage_error(path, error)):
            raise full from error
        raise


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
