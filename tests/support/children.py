"""Work in a process of its own, which a failpoint may kill."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ftagent.core.failpoints import VARIABLE


def in_a_child(work: Callable[[], object], failpoint: str = "") -> int:
    """Run `work` in a process of its own; returns its wait status. A fork: the imports are paid once."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        os.environ[VARIABLE] = failpoint
        work()
        status = 0
    finally:
        os._exit(status)
