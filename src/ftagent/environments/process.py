"""Starting a command so that all of it can be ended, and ending it.

Sandboxed: `sh` enters the control groups and becomes bubblewrap, whose process namespace dies as one. Plain: the
supervisor beside this file is the parent of everything the command starts. Both die when we do.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftagent.environments import proctree, sandbox
from ftagent.environments.limits import Group
from ftagent.environments.variables import SYSTEM_PATH

MARK = "FTAGENT_EXECUTION"
"""Variable that marks the processes of one execution, to find those of a killed supervisor."""
KILL_SECONDS = 10.0

_ENTER = """
while [ "$1" != -- ]; do echo 0 > "$1" || exit 126; shift; done
shift
if [ "$1" != 0 ]; then ulimit -u "$1" 2>/dev/null || ulimit -p "$1" || exit 126; fi
shift
exec "$@"
"""


@dataclass(frozen=True)
class Report:
    """How a command ended, as far as it is known. `exit_code` is negative for a signal."""

    exit_code: int | None
    error: str


class Running:
    """A started command. The caller owns it until `close`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        output: int,
        report: int,
        control: int | None,
        group: Group,
        mark: str,
    ) -> None:
        self.output = output
        self.group = group
        self.exited = os.pidfd_open(process.pid)
        """Readable once the command and everything that it started has ended."""
        self._process = process
        self._report = report
        self._control = control
        self._control_kills = control is not None
        self._mark = mark
        os.set_blocking(output, False)
        os.set_blocking(report, False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> bool:
        """End everything, whatever it does. Blocks until it is dead; False if it is not after ten seconds."""
        self._drop_control()
        gone = self.group.kill(KILL_SECONDS)
        if self._control_kills:
            self._wait(KILL_SECONDS)
        elif not self.group.folders and self._process.poll() is None:
            # Not when it is collected: the number may be another process's by now.
            # bubblewrap's init first: when it is gone, the kernel has ended all that was in its namespace.
            proctree.kill(proctree.children(self.pid))
            self._wait(0.5)
        if self._process.returncode is None:
            self._process.kill()
        gone = self._wait(KILL_SECONDS) and gone
        self._end_strays()
        return gone

    def finish(self) -> Report:
        """After `exited`: collect the process and read its report."""
        self._wait(KILL_SECONDS)
        self._drop_control()
        text = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._report, 65536):
                text += piece
        values: dict[str, object] = {}
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                values.update(json.loads(line))
        code = values.get("exit-code")
        if isinstance(init := values.get("child-pid"), int):
            _wait_for_namespace(init, KILL_SECONDS)
        if code is None:
            self.group.kill(KILL_SECONDS)
            self._end_strays()
        return Report(code if isinstance(code, int) else None, str(values.get("error", "")))

    def close(self) -> None:
        """Release descriptors and control groups."""
        self._drop_control()
        for descriptor in (self.output, self._report, self.exited):
            os.close(descriptor)
        self.group.remove()

    def _drop_control(self) -> None:
        if self._control is not None:
            os.close(self._control)
            self._control = None

    def _end_strays(self) -> None:
        # Only a supervisor that was killed leaves something behind, and only where no group holds it.
        while self._mark and not self.group.folders and (left := proctree.marked(MARK, self._mark)):
            proctree.kill(left)
            time.sleep(0.005)

    def _wait(self, seconds: float) -> bool:
        """Wait for the direct child; False when it has not ended by then."""
        deadline, pause = time.monotonic() + seconds, 0.0005
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        return True


def start_sandboxed(
    command: Sequence[str], view: sandbox.View, variables: Mapping[str, str], group: Group, processes: int
) -> Running:
    """Start `command` in bubblewrap. `processes` > 0 sets RLIMIT_NPROC. Raises OSError."""
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        output, output_end = _pipe(ours, theirs)
        report, report_end = _pipe(ours, theirs)
        data = {path: _memory_file(theirs, text) for path, text in sandbox.made_up_files(view).items()}
        options = sandbox.arguments(view, variables, data)
        # Through a file: every user of the host can read arguments, and these hold the values of variables.
        listed = _memory_file(theirs, "".join(option + "\0" for option in options))
        argv = [
            "/bin/sh", "-c", _ENTER, "sh", *group.entrances, "--", str(processes),
            "bwrap", "--args", str(listed), "--json-status-fd", str(report_end), "--", *command,
        ]  # fmt: skip
        environment = {"PATH": os.environ.get("PATH", SYSTEM_PATH)}
        process = _spawn(argv, environment, output_end, [report_end, listed, *data.values()])
        running = Running(process, output, report, None, group, "")
        ours.pop_all()
    return running


def start_plain(
    command: Sequence[str], folder: Path, variables: Mapping[str, str], group: Group, processes: int
) -> Running:
    """Start `command` below the supervisor. `processes` > 0 sets RLIMIT_NPROC. Raises OSError."""
    mark = secrets.token_hex(8)
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        output, output_end = _pipe(ours, theirs)
        report, report_end = _pipe(ours, theirs)
        control_end, control = os.pipe()
        ours.callback(os.close, control)
        theirs.callback(os.close, control_end)
        argv = [
            sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py")),
            str(control_end), str(report_end), str(processes), str(folder), *group.entrances, "--", *command,
        ]  # fmt: skip
        process = _spawn(argv, {**variables, MARK: mark}, output_end, [control_end, report_end])
        running = Running(process, output, report, control, group, mark)
        ours.pop_all()
    return running


def _pipe(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe()
    ours.callback(os.close, read)
    theirs.callback(os.close, write)
    return read, write


def _memory_file(stack: contextlib.ExitStack, text: str) -> int:
    descriptor = os.memfd_create("ftagent")
    stack.callback(os.close, descriptor)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(os.fsencode(text))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _wait_for_namespace(init: int, seconds: float) -> None:
    """Wait until process 1 of a sandbox is dead: all that was in it died before. bubblewrap tells of it earlier."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{init}/status").read_text().splitlines())
        except (OSError, ValueError):
            return
        # Another process of that number is process 1 of nothing.
        numbers = status.get("NSpid", "").split()
        if status.get("State", "Z")[0] in "ZX" or len(numbers) < 2 or numbers[-1] != "1":
            return
        time.sleep(0.001)


def _nothing(number: int, frame: object) -> None: ...


def _ignore_by_ourselves() -> None:
    """What `nohup` or a shell's `&` had us ignore stays ignored by us, and becomes a command's default again.

    An ignored signal stays ignored in what is executed, one with a handler does not.
    """
    if threading.current_thread() is threading.main_thread():
        for number in signal.valid_signals():
            if signal.getsignal(number) is signal.SIG_IGN and number not in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, _nothing)


def _spawn(
    argv: Sequence[str], environment: Mapping[str, str], output: int, passed: Sequence[int]
) -> subprocess.Popen[bytes]:
    _ignore_by_ourselves()
    return subprocess.Popen(
        argv,
        env=environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=passed,
        start_new_session=True,
    )
