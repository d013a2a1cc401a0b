"""Process 1 of a container. Executed by path in an isolated interpreter of the image (3.7 or later), never imported.

The command's output, both streams of it in their order, is the container's standard output; what the container writes
to standard error comes from here alone: one JSON line, how the command ended. Nothing in the container can write it:
this process cannot be killed from inside (the kernel ignores it), traced or looked into (it is not dumpable).
Everything ends with it: when the command has ended, at the time limit, and when standard input closes, because
ftagent wants an end or is gone.

Usage: container_init.py TIME_LIMIT FOLDER -- COMMAND...

Few imports: every command waits for them. `ctypes` around its C part would cost a third of the time to start.
"""

# ruff: noqa: SIM105, PTH102, PTH123

from __future__ import annotations

import _ctypes
import _signal  # type: ignore[import-not-found]
import os
import resource
import select
import sys
import time

PR_SET_DUMPABLE = 4
SIGKILL = 9
REAP_SECONDS = 0.5
"""How often orphans that have ended are collected; until then they count as processes."""
SCRATCH = ("/tmp", "/dev/shm")
VICTIM = "500"
"""Out-of-memory score of the command: it dies for want of memory, not this process, which tells of it."""
# Control group versions 1 and 2.
PEAK = ("/sys/fs/cgroup/memory/memory.max_usage_in_bytes", "/sys/fs/cgroup/memory.peak")
EVENTS = ("/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events")


def _set_dumpable(value: int) -> None:
    prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]  # None: all that is loaded
    if _ctypes.call_function(prctl, (PR_SET_DUMPABLE, value, 0, 0, 0)) != 0:
        raise OSError("prctl")


def _become(command: list[str], folder: str) -> None:
    """In the child: execute. Does not return."""
    try:
        _set_dumpable(1)
        report = os.dup(2)
        os.set_inheritable(report, False)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(1, 2)
        os.setsid()
        # Python ignores them, and what is ignored stays so in the command: `yes | head` would not end.
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
            _signal.signal(number, _signal.SIG_DFL)
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(VICTIM)
        except OSError:
            pass
        os.chdir(folder)
        _make_home()
    except OSError as error:
        os.write(report, b'{"error": %s}\n' % _quoted(str(error)))
        os._exit(126)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, os.fsencode(f"{command[0]}: {error.strerror}\n"))
        os._exit(127)


def _make_home() -> None:
    try:
        os.mkdir(os.environ["HOME"])
    except (OSError, KeyError):
        pass  # it is there, or what is there is the command's own doing


def _quoted(text: str) -> bytes:
    """`text` as a JSON string."""
    return b'"%s"' % "".join(c if c.isprintable() and c not in '"\\' else " " for c in text).encode("ascii", "replace")


def _reap(main: int) -> int | None:
    """Collect every child that has ended: the wait status of `main` if it was one of them."""
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
    """Kill every other process of the container and wait until it is gone."""
    while os.getpid() == 1:  # never anywhere else
        try:
            os.kill(-1, SIGKILL)
            os.waitpid(-1, 0)
        except (ProcessLookupError, ChildProcessError):
            return


def _number(files: tuple[str, ...], key: str = "") -> int | None:
    """A value of the container's control group; None where the engine does not show it."""
    for name in files:
        try:
            with open(name) as file:
                text = file.read()
        except OSError:
            continue
        for line in text.splitlines():
            first, _, last = line.rpartition(" ")
            if first == key:
                return int(last)
    return None


def _full(folder: str) -> bool:
    try:
        state = os.statvfs(folder)
    except OSError:
        return False
    return state.f_blocks > 0 and state.f_bavail == 0


def _watch(child: int, limit: float, wake: int) -> tuple[int | None, str]:
    """Wait until the command ends, the time is over or standard input closes: wait status and what stopped it."""
    deadline = time.monotonic() + limit if limit > 0 else float("inf")
    while True:
        status = _reap(child)
        if status is not None:
            return status, ""
        left = deadline - time.monotonic()
        if left <= 0:
            return None, "time"
        ready, _, _ = select.select([0, wake], [], [], min(left, REAP_SECONDS))
        if 0 in ready:
            return None, "control"
        if wake in ready:
            os.read(wake, 4096)


def main() -> int:
    if os.getpid() != 1:
        # What it kills is all that it can see: anywhere but in a container of its own that is the whole machine.
        sys.stderr.write("container_init.py: works as process 1 of a container only\n")
        return 2
    limit, folder, command = float(sys.argv[1]), sys.argv[2], sys.argv[4:]
    if command[0] == "python":
        command[0] = sys.executable
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    _signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    _set_dumpable(0)
    child = os.fork()
    if child == 0:
        _become(command, folder)
    status, stopped = _watch(child, limit, wake)
    full = [name for name in SCRATCH if _full(name)]
    _kill_all()
    if stopped == "control":
        return 0
    code = None
    if status is not None:
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    peak = _number(PEAK) or resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    values = {"exit-code": code, "oom-kills": _number(EVENTS, "oom_kill"), "peak": peak}
    told = [f'"{name}": {"null" if value is None else value}' for name, value in values.items()]
    told += [f'"stopped": "{stopped}"', f'"full": "{" ".join(full)}"']
    os.write(2, f"{{{', '.join(told)}}}\n".encode())
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # what an interpreter does at its end takes time
