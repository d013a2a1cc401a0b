"""Deaths on demand, for tests: FTAGENT_FAILPOINT=before:17 kills this process before the 17th journal append.

Kinds: `before`, `after`, and `torn` (half of the record is on disk). SIGKILL, so that nothing is cleaned up.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

VARIABLE = "FTAGENT_FAILPOINT"


@dataclass(frozen=True)
class Failpoint:
    """Where to die; the default is nowhere."""

    kind: str = ""
    sequence: int = 0

    @classmethod
    def from_environment(cls) -> Failpoint:
        kind, _, number = os.environ.get(VARIABLE, "").partition(":")
        return cls(kind, int(number)) if number else cls()

    def here(self, kind: str, sequence: int) -> bool:
        return self.kind == kind and self.sequence == sequence

    def die(self, kind: str, sequence: int) -> None:
        """Kill this process if this is the place."""
        if self.here(kind, sequence):
            os.kill(os.getpid(), signal.SIGKILL)
