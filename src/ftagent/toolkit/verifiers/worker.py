"""Grading that may hang: symbolic comparison in a child process with a time limit.

math-verify and sympy guard themselves with SIGALRM, which works on a main thread only, and sympy can run
for hours on a short expression. The child does one request at a time; a late one is killed and counts as
wrong.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from typing import Any

START_SECONDS = 120.0
"""For the child's imports on a busy machine."""
MEMORY_BYTES = 4 * 2**30
MAX_TIMEOUTS = 20
"""After so many late requests the rest are not tried: scoring stays bounded whatever the outputs are."""


class GradingWorker:
    """Starts its child at the first request. Safe to share between threads.

    `close` ends the child; so does losing the last reference to this, and the end of the interpreter.
    """

    def __init__(self, seconds: float = 10.0, most_timeouts: int | None = MAX_TIMEOUTS) -> None:
        """After `most_timeouts` late requests every other is answered with 0 at once; None never stops to try."""
        self.seconds = seconds
        self._most_timeouts = most_timeouts
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._timeouts = 0

    def math_equal(self, answer: str, reference: str) -> bool:
        """Whether two answers are the same mathematical object, by math-verify."""
        return self._request({"kind": "math", "answer": answer, "reference": reference}) >= 1.0

    def task_score(self, benchmark: str, answer: str, entry: Mapping[str, Any]) -> float:
        """`score_answer` of the reasoning-gym task that `benchmark` (`rg:…`) names, for a JSON `entry`."""
        return self._request({"kind": "task", "benchmark": benchmark, "answer": answer, "entry": dict(entry)})

    def close(self) -> None:
        """End the child, if there is one."""
        with self._lock:
            self._stop()

    def _request(self, request: Mapping[str, Any]) -> float:
        with self._lock:
            if self._most_timeouts is not None and self._timeouts >= self._most_timeouts:
                return 0.0
            process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            timer = threading.Timer(self.seconds, process.kill)
            timer.start()
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                reply = process.stdout.readline()
            except BrokenPipeError:
                reply = ""
            finally:
                timer.cancel()
            if not reply:
                self._timeouts += 1
                self._stop()
                return 0.0
            return float(json.loads(reply))

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            # -P: a file math_verify.py where the command is run would grade in place of the package.
            [sys.executable, "-P", "-m", "ftagent.toolkit.verifiers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        assert process.stdout is not None
        timer = threading.Timer(START_SECONDS, process.kill)
        timer.start()
        ready = process.stdout.readline()
        timer.cancel()
        if ready.strip() != "ready":
            process.kill()
            process.communicate()
            raise RuntimeError("the grading process does not start; is math-verify installed?")
        self._process = process
        self._end = weakref.finalize(self, _end, process)
        return process

    def _stop(self) -> None:
        if self._process is not None:
            self._end()
            self._process = None


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    with contextlib.suppress(BrokenPipeError), process:
        pass  # leaving closes the pipes and reaps


def _score(request: Mapping[str, Any]) -> float:
    if request["kind"] == "task":
        from ftagent.toolkit.verifiers.tasks import build_dataset

        dataset = build_dataset(request["benchmark"], seed=0)
        return float(dataset.score_answer(request["answer"], request["entry"]))
    from math_verify import parse, verify  # type: ignore[import-untyped]

    # Boxed on both sides, so that the parser reads them as LaTeX or as a plain expression alike.
    reference = parse(f"\\boxed{{{request['reference']}}}")
    answer = parse(f"\\boxed{{{request['answer']}}}")
    return float(bool(reference) and bool(answer) and bool(verify(reference, answer)))


def main() -> None:
    """Serve requests, one JSON line each, until stdin ends. Replies are numbers."""
    import resource

    import math_verify  # noqa: F401 - before `ready`, so that its import is not on a request's clock

    # A tower of powers fills memory faster than the clock runs out.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # Libraries may print; only this handle reaches the caller.
    replies, sys.stdout = sys.stdout, sys.stderr
    replies.write("ready\n")
    replies.flush()
    for line in sys.stdin:
        try:
            value = _score(json.loads(line))
        except Exception:  # noqa: BLE001 - a verifier may raise anything on arbitrary text: not equal then
            value = 0.0
        replies.write(json.dumps(value) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
