"""Steps on files relative to an open folder descriptor; none of them follows a symlink."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from pathlib import Path

from ftagent.core.errors import StageRefused, StorageFull
from ftagent.core.files import storage_error, sync_folder, temporary_name, write_new

MAX_DEPTH = 100
"""Folders within folders. More is no result, it is an attempt to exhaust our descriptors."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a named pipe that was put in a file's place must not wait for a writer.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class UnsafePath(StageRefused):
    """A name that leaves the workspace, cannot be a file name, or goes through a symlink."""


def wrapped(name: str, error: OSError) -> StageRefused | StorageFull | OSError:
    """The error for `name` that says who is at fault."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
        return UnsafePath(f"{name!r} goes through a symlink or a file; only plain folders are followed")
    if error.errno == errno.ENAMETOOLONG:
        return UnsafePath(f"file name {name[:77]!r} is too long for this file system")
    if error.errno == errno.ENOENT:
        return StageRefused(f"{name!r} is not in the workspace")
    if error.errno in (errno.EACCES, errno.EPERM):
        # The workspace is ours to read and write; only what ran in it can have changed that.
        return StageRefused(f"{name!r} has permissions that keep us out")
    return storage_error(name, error) or error


def kind(status: os.stat_result) -> str:
    """`file`, `folder`, `link` or `special`."""
    if stat.S_ISREG(status.st_mode):
        return "file"
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    return "link" if stat.S_ISLNK(status.st_mode) else "special"


def write_at(folder: int, name: str, content: bytes, shown: str, durable: bool = True) -> None:
    """Replace the plain file `name` atomically, durably if asked; `shown` names it in errors."""
    temporary = temporary_name()
    try:
        _refuse_other(folder, name, shown)
        write_new(temporary, content, durable=durable, folder=folder)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        if isinstance(error, OSError):
            raise wrapped(shown, error) from error
        raise


def move_at(source: Path, folder: int, name: str, shown: str) -> None:
    """Move the file `source` to `name` in `folder` on the same file system, replacing a plain file alone."""
    try:
        _refuse_other(folder, name, shown)
        os.replace(source, name, dst_dir_fd=folder)
    except OSError as error:
        raise wrapped(shown, error) from error


def _refuse_other(folder: int, name: str, shown: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        found = kind(os.stat(name, dir_fd=folder, follow_symlinks=False))
        if found != "file":
            raise UnsafePath(f"{shown!r} is a {found} in the workspace; only plain files are replaced")


def open_regular(folder: int, name: str, shown: str) -> tuple[int, int]:
    """An open descriptor and the size in bytes of a regular file."""
    try:
        descriptor = os.open(name, FILE, dir_fd=folder)
    except OSError as error:
        raise wrapped(shown, error) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UnsafePath(f"{shown!r} is a {kind(status)}, not a plain file")
    return descriptor, status.st_size


def copy_file(folder: int, name: str, target: Path, shown: str) -> None:
    """Copy a regular file to the new file `target`; of its mode only the owner's execute bit is kept."""
    descriptor, _ = open_regular(folder, name, shown)
    with os.fdopen(descriptor, "rb") as source, target.open("xb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        os.fchmod(copy.fileno(), 0o755 if os.fstat(source.fileno()).st_mode & 0o100 else 0o644)


def copy_tree(folder: int, target: Path, prefix: str, copied: list[str], left_out: list[str]) -> None:
    """Copy what is in `folder` into the new folder `target`; names go to `copied` or `left_out`."""
    refuse_depth(prefix.count("/"))
    target.mkdir()
    for name in sorted(os.listdir(folder)):
        shown = prefix + name
        found = kind(os.stat(name, dir_fd=folder, follow_symlinks=False))
        try:
            if found == "folder":
                below = os.open(name, FOLDER, dir_fd=folder)
                try:
                    copy_tree(below, target / name, shown + "/", copied, left_out)
                finally:
                    os.close(below)
            elif found == "file":
                copy_file(folder, name, target / name, shown)
                copied.append(shown)
            else:
                left_out.append(shown)
        except UnsafePath:
            left_out.append(shown)


def refuse_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise StageRefused(f"folders are nested more than {MAX_DEPTH} deep")


def digest_file(folder: int, name: str, shown: str) -> str:
    """SHA-256 in hex of a regular file."""
    descriptor, _ = open_regular(folder, name, shown)
    with os.fdopen(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_tree(folder: int, prefix: bytes, digest: hashlib._Hash) -> None:
    """Feed names, kinds, contents and link targets below `folder` to `digest`, in order of their bytes."""
    refuse_depth(prefix.count(b"/"))
    for name in sorted(os.listdir(folder), key=os.fsencode):
        path = prefix + os.fsencode(name)
        found = kind(os.stat(name, dir_fd=folder, follow_symlinks=False))
        content = ""
        if found == "file":
            content = digest_file(folder, name, name)
        elif found == "link":
            content = os.readlink(name, dir_fd=folder)
        # Lengths, not separators: a file name may contain any byte but NUL and slash.
        digest.update(b"%s %d %d " % (found.encode(), len(path), len(os.fsencode(content))))
        digest.update(path + os.fsencode(content))
        if found == "folder":
            below = os.open(name, FOLDER, dir_fd=folder)
            try:
                digest_tree(below, path + b"/", digest)
            finally:
                os.close(below)


def replace(temporary: Path, destination: Path) -> None:
    """Put `temporary` in the place of `destination`, which may be a folder that is not empty."""
    aside: Path | None = None
    if destination.is_dir() and not destination.is_symlink():
        aside = destination.parent / temporary_name()
        destination.rename(aside)
    try:
        temporary.rename(destination)
    except BaseException:
        if aside is not None:
            aside.rename(destination)
        raise
    sync_folder(destination.parent)
    if aside is not None:
        remove(aside)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
