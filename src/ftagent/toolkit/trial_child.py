"""The process of a trial: its output is passed on and its end explained. Standard library alone."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftagent.toolkit.trial_rules import Stop, Watcher

OUT_OF_MEMORY = "out of memory"
LOOK_SECONDS = 0.05
GRACE_SECONDS = 5.0
"""Between asking a script to end and ending it."""
KILL_SECONDS = 2.0
"""How long a group may take to be gone; zombies that nobody collects are part of it."""
MEMORY_SHARE = 0.95
"""Of its bound at which a script is ended here, where it can be started again: beyond the bound everything is."""
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_TAIL_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_NO_MEMORY = re.compile(
    rb"MemoryError|OutOfMemoryError|(CUDA|HIP|XPU|MPS backend)[^\n]{0,40}out of memory|can't allocate memory"
    rb"|not enough memory: you tried to allocate|Cannot allocate memory|std::bad_alloc|CUBLAS_STATUS_ALLOC_FAILED"
    rb"|worker \(pid[^\n]*killed by signal: Killed|Unable to allocate [^\n]* for an array"
)


@dataclass(frozen=True)
class Ended:
    """How a script ended. `code`: 128 + n for signal n, as a shell reports it."""

    code: int
    why: str = ""
    """`out of memory`, or nothing that is known."""
    stop: Stop | None = None


class Child:
    """One start of the script, in a process group of its own."""

    def __init__(self, command: Sequence[str], variables: dict[str, str], folder: Path, memory_mb: int) -> None:
        self._command = list(command)
        self._variables = variables
        self._folder = folder
        self._memory_bytes = int(memory_mb * 2**20 * MEMORY_SHARE)
        self._tail = b""

    def until_end(self, watcher: Watcher) -> Ended:
        """Run it to its end, or to that which `watcher` finds. Nothing of it is left afterwards."""
        read, write = os.pipe()
        try:
            process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.STDOUT, cwd=self._folder,
                env={**os.environ, **self._variables}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            os.close(read)
            self._pass_on(f"trial: {self._command[0]}: cannot be started: {error.strerror}\n".encode())
            return Ended(127)
        finally:
            os.close(write)
        try:
            with _signals_to(process):
                stop, why = self._watch(process, read, watcher)
        finally:
            _end(process)
            os.close(read)
        return self._ended(process.returncode, stop, why)

    def _watch(self, process: subprocess.Popen[bytes], output: int, watcher: Watcher) -> tuple[Stop | None, str]:
        os.set_blocking(output, False)
        is_open, next_look = True, 0.0
        while process.poll() is None:
            if is_open and select.select([output], [], [], LOOK_SECONDS)[0]:
                is_open = self._read(output)
            elif not is_open:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_SECONDS)
            if time.monotonic() < next_look:
                continue
            next_look = time.monotonic() + LOOK_SECONDS
            if (stop := watcher.look()) is not None:
                return stop, ""
            if self._memory_bytes and _resident_bytes({process.pid, os.getsid(0)}) > self._memory_bytes:
                return None, OUT_OF_MEMORY
        while is_open and self._read(output):
            pass
        # Also after its end: whether a trial counts must not depend on how fast it was.
        return watcher.look(last=True) if process.returncode == 0 else None, ""

    def _read(self, output: int) -> bool:
        """Pass on what there is; False when there is no more."""
        try:
            data = os.read(output, _READ_BYTES)
        except BlockingIOError:
            return False
        self._pass_on(data)
        return bool(data)

    def _pass_on(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        while data:
            data = data[os.write(1, data) :]

    def _ended(self, code: int, stop: Stop | None, why: str) -> Ended:
        if stop is not None:
            return Ended(0, stop=stop)
        if why:
            return Ended(1, why)
        if code == -signal.SIGKILL or (code and _NO_MEMORY.search(self._tail)):
            why = OUT_OF_MEMORY  # the kernel kills so, and nobody else does who leaves us alive
        return Ended(128 - code if code < 0 else code, why)


@contextlib.contextmanager
def _signals_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Meanwhile whatever this process is sent reaches the script, which ends or goes on as it likes."""

    def pass_on(number: int, frame: object) -> None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, number)

    before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the script and what it left in its group."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    deadline = time.monotonic() + KILL_SECONDS
    with contextlib.suppress(OSError):
        while True:  # until nothing of it is left that holds memory
            os.killpg(process.pid, signal.SIGKILL)
            process.poll()
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)
    process.wait()


def _resident_bytes(sessions: set[int]) -> int:
    """Of all processes in `sessions`; ours counts too where the bound is for all together."""
    pages = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                values = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                if int(values[3]) in sessions:
                    pages += int(values[21])
    return pages * os.sysconf("SC_PAGE_SIZE")
