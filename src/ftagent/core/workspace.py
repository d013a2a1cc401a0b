"""A workspace's files, handled as what they are: written by somebody who may want us to touch other files.

Every path is walked one component at a time with `O_NOFOLLOW` relative to an open folder, so that not
even a link planted between a check and its use is followed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ftagent.core.errors import StageRefused
from ftagent.core.files import encode, make_folder, storage_error, temporary_name
from ftagent.core.nofollow import (
    FOLDER,
    UnsafePath,
    copy_file,
    copy_tree,
    digest_file,
    digest_tree,
    kind,
    move_at,
    open_regular,
    remove,
    replace,
    wrapped,
    write_at,
)
from ftagent.core.types import Files

__all__ = ["Collected", "UnsafePath", "Workspace", "safe_parts"]

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4095


@dataclass(frozen=True)
class Collected:
    """What `Workspace.collect` copied and what it left out, relative to what was collected (`.` itself)."""

    files: tuple[str, ...]
    left_out: tuple[str, ...]
    """Symlinks, sockets, named pipes and devices."""


def safe_parts(relative: str) -> tuple[str, ...]:
    """The components of a confined relative POSIX path; `.` and double slashes are dropped.

    Raises UnsafePath for an empty name, an absolute path, `..`, NUL, a component of more than 255
    bytes, or what no file name can encode.
    """

    def refuse(why: str) -> UnsafePath:
        shown = relative if len(relative) <= 80 else relative[:77] + "..."
        return UnsafePath(f"file name {shown!r} {why}")

    if "\0" in relative:
        raise refuse("contains NUL")
    if relative.startswith("/"):
        raise refuse("is absolute; names are relative to the workspace")
    parts = tuple(part for part in relative.split("/") if part not in ("", "."))
    if ".." in parts:
        raise refuse("contains `..`; names stay inside the workspace")
    if not parts:
        raise refuse("is empty")
    for part in parts:
        try:
            size = len(os.fsencode(part))
        except UnicodeEncodeError:
            raise refuse("cannot be encoded") from None
        if size > MAX_NAME_BYTES:
            raise refuse(f"has a part of {size} bytes; at most {MAX_NAME_BYTES} are possible")
    return parts


class Workspace:
    """The folder in which an experiment's files execute. Making one touches no disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, files: Files, *, durable: bool = True) -> None:
        """Write all `files`, each atomically; missing folders are made, the workspace's own too.

        With `durable` they are on disk (fsync) before this returns. All names are checked before anything is written.

        Raises:
            UnsafePath: a bad name, a symlink as parent or target, or a folder where a file should be.
            StorageFull: no space, a read-only file system, or no permission.
        """
        for name in files:
            if name.endswith(("/", "/.")) or name == ".":
                raise UnsafePath(f"file name {name[:77]!r} names a folder; a file is wanted")
        checked = [(name, self._parts(name), encode(content)) for name, content in files.items()]
        try:
            make_folder(self.path)
        except OSError as error:
            raise (storage_error(self.path, error) or wrapped(str(self.path), error)) from error
        for name, parts, content in checked:
            with self._folder(parts[:-1], name, make=True) as folder:
                write_at(folder, parts[-1], content, name, durable)

    def create(self, files: Files) -> None:
        """Make the workspace with `files` in it: a full disk or a kill leaves all of it or none.

        Raises as `write` does.
        """
        staging = Workspace(self.path.with_name(f"{self.path.name}.new"))
        staging.write(files, durable=False)
        try:
            staging.path.rename(self.path)
        except OSError as error:
            raise (storage_error(self.path, error) or wrapped(str(self.path), error)) from error

    def exists(self, relative: str) -> bool:
        """True for a file or folder that is reached through no symlink. Raises UnsafePath for a bad name."""
        self._parts(relative)
        try:
            return kind(self._stat(relative)) in ("file", "folder")
        except StageRefused:
            return False

    def read(self, relative: str, max_bytes: int | None = None) -> bytes:
        """A file's content. Raises UnsafePath for a link, StageRefused if missing or over `max_bytes`."""
        parts = self._parts(relative)
        with self._folder(parts[:-1], relative) as folder:
            descriptor, size = open_regular(folder, parts[-1], relative)
            with os.fdopen(descriptor, "rb") as file:
                if max_bytes is not None and size > max_bytes:
                    raise StageRefused(f"{relative} has {size} bytes; at most {max_bytes} are read")
                content = file.read() if max_bytes is None else file.read(max_bytes + 1)
        if max_bytes is not None and len(content) > max_bytes:
            raise StageRefused(f"{relative} has more than {max_bytes} bytes")
        return content

    def open_file(self, relative: str) -> IO[bytes]:
        """A file opened for reading. Raises UnsafePath for a link, StageRefused if it is not there."""
        parts = self._parts(relative)
        with self._folder(parts[:-1], relative) as folder:
            descriptor, _ = open_regular(folder, parts[-1], relative)
        return os.fdopen(descriptor, "rb")

    def adopt(self, relative: str, source: Path | None) -> None:
        """Move the file `source`, which lies on the same file system, to `relative`; None makes a folder there.

        Raises UnsafePath: a bad name, a symlink as parent or target, or a folder where a file should be.
        """
        parts = self._parts(relative)
        if source is None:
            with self._folder(parts, relative, make=True):
                return
        with self._folder(parts[:-1], relative, make=True) as folder:
            move_at(source, folder, parts[-1], relative)

    def collect(self, relative: str, destination: Path) -> Collected:
        """Copy a file or folder (`.`: all) out to `destination`, replacing what is there in one rename.

        Symlinks and other special files are left out and reported. The folder of `destination` is made.

        Raises:
            UnsafePath: a bad name, or `relative` is or goes through a symlink.
            StageRefused: `relative` is not there.
            StorageFull: no space, a read-only file system, or no permission at the destination.
        """
        parts = self._parts(relative)
        temporary = destination.parent / temporary_name()
        copied: list[str] = []
        left_out: list[str] = []
        try:
            make_folder(destination.parent)
            if not parts or kind(self._stat(relative)) == "folder":
                with self._folder(parts, relative) as folder:
                    copy_tree(folder, temporary, "", copied, left_out)
            else:
                with self._folder(parts[:-1], relative) as folder:
                    copy_file(folder, parts[-1], temporary, relative)
                copied.append(".")
            replace(temporary, destination)
        except OSError as error:
            if full := storage_error(destination, error):
                raise full from error
            raise
        finally:
            remove(temporary)
        return Collected(tuple(copied), tuple(left_out))

    def digest(self, relative: str) -> str:
        """SHA-256 in hex of a file's content, or of a folder's names, kinds, contents and link targets.

        Raises UnsafePath if `relative` is or goes through a symlink, StageRefused if it is not there.
        """
        parts = self._parts(relative)
        if not parts or kind(self._stat(relative)) == "folder":
            digest = hashlib.sha256()
            with self._folder(parts, relative) as folder:
                digest_tree(folder, b"", digest)
            return digest.hexdigest()
        with self._folder(parts[:-1], relative) as folder:
            return digest_file(folder, parts[-1], relative)

    def _parts(self, relative: str) -> tuple[str, ...]:
        if relative == ".":
            return ()
        parts = safe_parts(relative)
        total = len(os.fsencode(f"{self.path}/{'/'.join(parts)}"))
        if total > MAX_PATH_BYTES:
            raise UnsafePath(f"file name {relative[:77]!r} gives a path of {total} bytes")
        return parts

    def _stat(self, relative: str) -> os.stat_result:
        parts = self._parts(relative)
        with self._folder(parts[:-1], relative) as folder:
            try:
                return os.stat(parts[-1] if parts else ".", dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                raise wrapped(relative, error) from error

    @contextlib.contextmanager
    def _folder(self, parts: tuple[str, ...], name: str, make: bool = False) -> Iterator[int]:
        """An open descriptor of the folder `parts` below the workspace, reached through no symlink."""
        descriptor = -1
        try:
            descriptor = os.open(self.path, FOLDER)
            for part in parts:
                try:
                    below = os.open(part, FOLDER, dir_fd=descriptor)
                except FileNotFoundError:
                    if not make:
                        raise
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                    below = os.open(part, FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            raise wrapped(name, error) from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)
