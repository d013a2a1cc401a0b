"""The parent of a command that runs without a sandbox. Executed by path in an isolated interpreter, never imported.

It adopts whatever the command leaves behind (child subreaper), kills all of it when the command has ended or when the
pipe to ftagent closes (ftagent was killed, or wants an end), and reports how the command ended.

Usage: supervisor.py CONTROL_FD REPORT_FD OPTIONS_JSON COMMAND...
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _become(command: list[str], options: dict[str, Any], report: int) -> None:
    """In the child: enter the groups, take the limits, execute. Does not return."""
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for entrance in options["entrances"]:
            with open(entrance, "w") as file:  # noqa: PTH123 - pathlib would double the start-up time
                file.write("0")
        if options["processes"]:
            _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
            soft = options["processes"] if hard < 0 else min(hard, options["processes"])
            resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
        os.chdir(options["folder"])
    except OSError as error:
        os.write(report, json.dumps({"error": str(error)}).encode() + b"\n")
        os._exit(126)
    try:
        os.execvp(command[0], command)
    except (OSError, ValueError) as error:
        os.write(2, f"{command[0]}: {getattr(error, 'strerror', error)}\n".encode())
        os._exit(127)


def _below(pid: int) -> list[int]:
    """All descendants of `pid`."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - as above
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat") as file:  # noqa: PTH123
                parent = int(file.read().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(name))
    found: list[int] = []
    queue = [pid]
    while queue:
        below = parents.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _reap(main: int) -> int | None:
    """Collect every child that has ended; the wait status of `main` when it was one of them."""
    status = None
    while True:
        try:
            pid, found = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == main:
            status = found


def _kill_all() -> None:
    """Stop, then kill whatever is below us until nothing is."""
    while below := _below(os.getpid()):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in below:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
        select.select([], [], [], 0.002)
        _reap(-1)


def main() -> None:
    control, report = int(sys.argv[1]), int(sys.argv[2])
    options, command = json.loads(sys.argv[3]), sys.argv[4:]
    os.set_inheritable(control, False)
    os.set_inheritable(report, False)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    child = os.fork()
    if child == 0:
        _become(command, options, report)
    status = None
    while status is None:
        ready, _, _ = select.select([control, wake], [], [])
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
        status = _reap(child)
        if status is None and control in ready:
            break
    _kill_all()
    if status is not None:
        os.write(report, json.dumps({"exit-code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


if __name__ == "__main__":
    main()
