"""Atomic writes: a reader sees the old content or the new, never a part.

These run several times in every step, so they are plain system calls on strings.
"""

from __future__ import annotations

import contextlib
import errno
import os
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
    return f".tmp-{os.urandom(10).hex()}"


def folder_of(path: Path | str) -> str:
    """The folder that `path` is in; `.` for a bare name."""
    folder, slash, _ = os.fspath(path).rpartition("/")
    return folder or slash or "."


def make_folder(path: Path | str, *, parents: bool = True) -> None:
    """Make a folder, with `parents` its missing parents too; one that is there is left alone.

    Raises:
        OSError: a file is in the way, no space, a read-only file system, or no permission.
    """
    name = os.fspath(path)
    try:
        os.mkdir(name)
    except FileNotFoundError:
        if not parents:
            raise
        make_folder(folder_of(name))
        make_folder(name, parents=False)
    except OSError:
        if not os.path.isdir(name):
            raise


def write_new(
    path: str, content: bytes, *, durable: bool = False, folder: int | None = None, mode: int = 0o666
) -> None:
    """Create the file `path`, relative to the open `folder` if one is given; a link is never followed.

    With `durable` it is on disk (fsync) before this returns. Raises OSError; the file may then hold a part.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode, dir_fd=folder)
    try:
        write_all(descriptor, content)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of `content`, however little the system takes at a time. Raises OSError."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def atomic_write(path: Path | str, data: bytes | str, *, durable: bool = False, mode: int = 0o666) -> None:
    """Replace `path` by `data` in one step: a temporary file beside it, then a rename.

    With `durable` file and folder are on disk (fsync) before this returns. The umask narrows `mode`, which holds
    from the first byte on. The folder must exist. After a failure `path` is as it was and the temporary file is gone.

    Raises:
        StorageFull: no space, a read-only file system, or no permission.
        OSError: any other failure, for example a missing folder.
    """
    content = encode(data)
    folder = folder_of(path)
    temporary = f"{folder}/{temporary_name()}"
    try:
        write_new(temporary, content, durable=durable, mode=mode)
        os.replace(temporary, path)
        if durable:
            sync_folder(folder)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and (full := storage_error(path, error)):
            raise full from error
        raise


def sync_folder(folder: Path | str) -> None:
    """fsync a folder, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
