"""Errors that users can act on."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ToolkitError(Exception):
    """What was asked for cannot be done; the text is one line: what is wrong, where, and what would be right."""

    exit_code = 2


class StorageFull(ToolkitError):
    """No space left. What was complete before still is."""

    exit_code = 1


class Diverged(ToolkitError):
    """The loss is no number any more."""

    exit_code = 1


class Interrupted(ToolkitError):
    """Stopped by the user; the text tells where the same command goes on."""

    exit_code = 3


@contextmanager
def full_storage_is_told(what: str, otherwise: Callable[[], str]) -> Iterator[None]:
    """Raise StorageFull where writing `what` fails for want of space; `otherwise` says what is still there."""
    try:
        yield
    except Exception as error:
        # safetensors and tokenizers raise classes of their own, which carry the system's words alone.
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and "no space left" not in str(error).lower():
            raise
        raise StorageFull(f"{what}: no space left on device; {otherwise()}") from error
