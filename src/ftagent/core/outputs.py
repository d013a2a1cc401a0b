"""What a run lays out for people: its best model as one folder, and its trained models by time."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ftagent.core import events
from ftagent.core.events import Record
from ftagent.core.files import temporary_name

_LINK = re.compile(r"[\d-]+_[\d-]+_(?:loop_(\d+)|default)")
_HERE = -100  # AT_FDCWD of fcntl.h
_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h


def replace_folder(new: Path, target: Path) -> None:
    """Put the folder `new` where `target` is: whoever looks sees the old one or the new one, whole.

    Where the file system cannot swap two names there is a moment without either. Raises OSError.
    """
    try:
        new.rename(target)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if not _swap(new, target):
        old = target.with_name(temporary_name())
        target.rename(old)
        new.rename(target)
        new = old
    shutil.rmtree(new, ignore_errors=True)


def point(link: Path, target: str) -> None:
    """Make `link` a symlink to `target`, in one step also where it is one already. Raises OSError."""
    temporary = link.with_name(temporary_name())
    temporary.symlink_to(target)
    try:
        temporary.replace(link)
    except OSError:
        temporary.unlink()
        raise


def list_models(run: Path, models: Mapping[int | None, Path], records: Sequence[Record]) -> None:
    """Make `models/` hold one relative link for each of `models`, named by when it was trained, and no other.

    `models`: where weights are, by loop, None for the baseline; `records`: the journal's. Raises OSError.
    """
    folder = run / "models"
    missing = dict(models)
    for loop, link in _links(folder):
        if loop in missing and link.exists():
            del missing[loop]
        else:
            link.unlink()
    for loop, model in missing.items():
        folder.mkdir(exist_ok=True)
        when = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(_trained_at(loop, records)))
        name = "default" if loop is None else f"loop_{loop}"
        point(folder / f"{when}_{name}", os.path.relpath(model, folder))


def drop_dangling(run: Path) -> None:
    """Take links out of `models/` whose weights are gone. Raises OSError."""
    for _, link in _links(run / "models"):
        if not link.exists():
            link.unlink()


def _links(folder: Path) -> list[tuple[int | None, Path]]:
    found = [(_LINK.fullmatch(path.name), path) for path in (folder.iterdir() if folder.is_dir() else ())]
    return [(None if named[1] is None else int(named[1]), path) for named, path in found if named and path.is_symlink()]


def _trained_at(loop: int | None, records: Sequence[Record]) -> float:
    for record in reversed(records):
        match record.event:
            case events.StageFinished(loop=where, purpose="full") | events.Ran(loop=where) if where == loop:
                return record.at
    return time.time()


def _swap(one: Path, other: Path) -> bool:
    """Exchange two names in one step (renameat2 of Linux); False where that cannot be done. Raises OSError."""
    exchange = None
    with contextlib.suppress(OSError, AttributeError):
        exchange = ctypes.CDLL(None, use_errno=True).renameat2
    if exchange is None:
        return False
    if exchange(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(one))
