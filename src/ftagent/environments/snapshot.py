"""What is in a workspace or in an input, in a form that can be compared; no link in a workspace is followed."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from ftagent.core.errors import StageRefused
from ftagent.core.nofollow import FOLDER, MAX_DEPTH, digest_file, kind

MAX_FILES = 20_000
"""More take longer to look at than a stage that is worth keeping."""
CONTENT_BYTES = 64 << 20
"""Inputs up to this are known by their content, larger ones (base models) by size, time of change and inode."""


@dataclass(frozen=True)
class Item:
    """One name in a workspace."""

    kind: str
    """`file`, `folder`, `link` or `special`."""
    content: str = ""
    """SHA-256 of a file, target of a link."""
    size: int = 0
    executable: bool = False


Snapshot = dict[str, Item]


def take(workspace: Path) -> Snapshot:
    """Every name below `workspace`. Raises StageRefused for what cannot be read or is too much, OSError."""
    found: Snapshot = {}
    descriptor = os.open(workspace, FOLDER)
    try:
        _walk(descriptor, "", found)
    finally:
        os.close(descriptor)
    return found


def _walk(folder: int, prefix: str, found: Snapshot) -> None:
    if prefix.count("/") > MAX_DEPTH:
        raise StageRefused(f"folders are nested more than {MAX_DEPTH} deep")
    for name in sorted(os.listdir(folder)):
        path = prefix + name
        if len(found) >= MAX_FILES:
            raise StageRefused(f"more than {MAX_FILES} files")
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        what = kind(status)
        if what == "file":
            digest = digest_file(folder, name, path)
            found[path] = Item(what, digest, status.st_size, bool(status.st_mode & 0o100))
        elif what == "link":
            found[path] = Item(what, os.readlink(name, dir_fd=folder))
        else:
            found[path] = Item(what)
        if what == "folder":
            below = os.open(name, FOLDER, dir_fd=folder)
            try:
                _walk(below, f"{path}/", found)
            finally:
                os.close(below)


def changes(before: Snapshot, after: Snapshot) -> Snapshot | None:
    """Files and folders that are new or different; None when files of ours could not bring `before` to `after`.

    That is so when something is gone, changed its kind, or is a link or a special file that was not there.
    """
    if any(path not in after or after[path].kind != item.kind for path, item in before.items()):
        return None
    changed = {path: item for path, item in after.items() if before.get(path) != item}
    return changed if all(item.kind in ("file", "folder") for item in changed.values()) else None


def identity(source: Path) -> list[list[str | int]]:
    """What an input holds, as far as it can be told in reasonable time. Raises OSError.

    Links are followed: a hub's snapshot is made of them.
    """
    names = [source]
    if source.is_dir():
        names = sorted(Path(folder, name) for folder, _, below in os.walk(source) for name in below)
    known = [(path, path.stat()) for path in names]
    small = sum(status.st_size for _, status in known) <= CONTENT_BYTES
    found: list[list[str | int]] = []
    for path, status in known:
        if small and S_ISREG(status.st_mode):
            with path.open("rb") as file:
                found.append([str(path), hashlib.file_digest(file, "sha256").hexdigest()])
        else:
            found.append([str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino])
    return found
