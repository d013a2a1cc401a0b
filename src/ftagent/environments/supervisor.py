"""The parent of a command that runs without a sandbox. Executed by path in an isolated interpreter, never imported.

It adopts whatever the command leaves behind (child subreaper), kills all of it when the command has ended or when the
pipe to ftagent closes (ftagent was killed, or wants an end), and reports how the command ended.

Usage: supervisor.py CONTROL_FD REPORT_FD PROCESSES FOLDER ENTRANCE... -- COMMAND...

Few imports: `json`, `signal` and `contextlib` would triple the time that it takes to start.
"""

# ruff: noqa: SIM105, PTH123, PTH208

from __future__ import annotations

import ctypes
import os
import resource
import select
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SIGKILL, SIGPIPE, SIGSTOP, SIGXFSZ = 9, 13, 19, 25
SIG_DFL = None
REAP_SECONDS = 0.5
"""How often adopted children that have ended are collected; until then they count as processes."""


def _become(command: list[str], folder: str, entrances: list[str], processes: int, report: int) -> None:
    """In the child: enter the groups, take the limits, execute. Does not return."""
    try:
        os.setsid()
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        # Python ignores them, and what is ignored stays so in the command: `yes | head` would not end.
        libc.signal(SIGPIPE, SIG_DFL)
        libc.signal(SIGXFSZ, SIG_DFL)
        for entrance in entrances:
            with open(entrance, "w") as file:
                file.write("0")
        if processes:
            _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
            resource.setrlimit(resource.RLIMIT_NPROC, (processes if hard < 0 else min(hard, processes), hard))
        os.chdir(folder)
    except OSError as error:
        import json

        os.write(report, json.dumps({"error": str(error)}).encode() + b"\n")
        os._exit(126)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(127)


def _below(pid: int) -> list[int]:
    """All descendants of `pid`."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(name))
    found: list[int] = []
    queue = [pid]
    while queue:
        below = parents.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _reap(main: int) -> tuple[int | None, bool]:
    """Collect every child that has ended: the wait status of `main` if it was one of them, and if any child is left."""
    status = None
    while True:
        try:
            pid, found = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status, False
        if pid == 0:
            return status, True
        if pid == main:
            status = found


def _kill_all() -> None:
    """Stop, then kill whatever is below us until nothing is."""
    while _reap(-1)[1]:
        below = _below(os.getpid())
        for number in (SIGSTOP, SIGKILL):
            for pid in below:
                try:
                    os.kill(pid, number)
                except OSError:
                    pass
        select.select([], [], [], 0.002)


def main() -> None:
    control, report, processes, folder = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    split = sys.argv.index("--", 5)
    os.set_inheritable(control, False)
    os.set_inheritable(report, False)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = os.fork()
    if child == 0:
        _become(sys.argv[split + 1 :], folder, sys.argv[5:split], processes, report)
    ended = os.pidfd_open(child)
    status = None
    while status is None:
        ready, _, _ = select.select([control, ended], [], [], REAP_SECONDS)
        status, _ = _reap(child)
        if status is None and control in ready:
            break
    _kill_all()
    if status is not None:
        os.write(report, b'{"exit-code": %d}\n' % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
