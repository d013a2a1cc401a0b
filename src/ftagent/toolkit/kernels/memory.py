"""Keep what tensors give back.

glibc returns a large block to the system at once, and the next tensor of that size waits until thousands of pages have
been zeroed, which takes longer than many an operation on it.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
LARGEST = 1 << 30
"""Bytes: blocks below it come from the heap, and as much may stay free at its end."""


def keep_freed_memory() -> bool:
    """Tell this process's allocator; False where it is not glibc."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(_MMAP_THRESHOLD, LARGEST), mallopt(_TRIM_THRESHOLD, LARGEST)])
