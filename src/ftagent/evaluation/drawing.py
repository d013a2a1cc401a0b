"""Items of procedural benchmarks, drawn in a child process whose hash seed is fixed.

Some tasks of reasoning-gym walk over sets of strings. Their order follows PYTHONHASHSEED, which Python draws anew for
each process: a resumed run would be measured on other items than it began with. The child's seed is always 0.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import weakref
from typing import IO, Any

from ftagent.core.errors import RequestError

VARIABLE = "PYTHONHASHSEED"
SEED = "0"


def reproducible() -> bool:
    """Whether this process itself has the fixed hash seed."""
    return os.environ.get(VARIABLE) == SEED and not sys.flags.hash_randomization


class DrawingWorker:
    """Draws entries of one benchmark. Starts its child at the first request; safe to share between threads.

    The child ends with the last reference to this, and with the interpreter.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def draw(self, split: str, wanted: int) -> list[dict[str, Any]]:
        """The first `wanted` entries of `split`, fewer where there are no more. Raises RequestError."""
        with self._lock:
            process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                pickle.dump((split, wanted), process.stdin)
                process.stdin.flush()
                # What comes back is our own child's, which has seen nothing that an experiment wrote.
                drawn = pickle.load(process.stdout)
            except (BrokenPipeError, EOFError, pickle.UnpicklingError) as error:
                raise RequestError(f"{self._name}: its items could not be drawn (the process ended)") from error
        if isinstance(drawn, str):
            raise RequestError(drawn)
        entries: list[dict[str, Any]] = drawn
        return entries

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "ftagent.evaluation.drawing", self._name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, VARIABLE: SEED},
        )
        self._process = process
        weakref.finalize(self, _end, process)
        return process


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.kill()
    process.wait()


def serve(name: str, requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests until there are no more; an error is answered as its text."""
    from ftagent.evaluation.procedural import ProceduralBenchmark

    benchmark = ProceduralBenchmark(name)
    while True:
        try:
            split, wanted = pickle.load(requests)
        except EOFError:
            return
        try:
            drawn: Any = benchmark.draw(split, wanted)
        except RequestError as error:
            drawn = str(error)
        pickle.dump(drawn, replies)
        replies.flush()


if __name__ == "__main__":
    _replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a task prints is no reply
    serve(sys.argv[1], sys.stdin.buffer, _replies)
