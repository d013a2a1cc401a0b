"""Environment `local`: commands on this machine, in a bubblewrap sandbox where that works.

Without bubblewrap the same limits hold, but it is no security boundary: a command can read what its user can read.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from ftagent.core.errors import EnvironmentUnavailable
from ftagent.core.files import storage_error
from ftagent.core.protocols import OnLine
from ftagent.core.types import Execution, Purpose, Stage
from ftagent.environments import identity, limits, proctree, sandbox
from ftagent.environments.ending import Ending, Stopped, classify
from ftagent.environments.importable import importable
from ftagent.environments.output import Capture
from ftagent.environments.process import Report, Running, start_plain, start_sandboxed
from ftagent.environments.stages import absolute, refusal, without_outputs
from ftagent.environments.variables import SYSTEM_PATH, command_variables
from ftagent.environments.watch import WATCH_SECONDS, Watch


@dataclass(frozen=True)
class LocalOptions:
    """How `LocalEnvironment` works."""

    sandbox: Literal["auto", "bubblewrap", "none"] = "auto"
    python: Path = Path(sys.executable)
    """What a leading `python` in a command means."""
    readable: tuple[Path, ...] = ()
    """Further files and folders that a sandboxed command may read."""
    import_roots: tuple[Path, ...] | None = None
    """Folders for PYTHONPATH, readable in a sandbox; None: where this package and its site packages lie."""
    variables: tuple[str, ...] = ()
    """Names of further variables of the host that reach a command."""
    output_cap_bytes: int = 8 * 1024 * 1024
    """Of a longer output the log keeps the first and the last half of this."""
    scratch: Path | None = None
    """Where a command without sandbox gets its TMPDIR; None is the system's."""
    control_groups: bool = True


class LocalEnvironment:
    """Implements `Environment`. Needs Linux 5.3."""

    name = "local"

    def __init__(self, options: LocalOptions | None = None) -> None:
        self.options = options or LocalOptions()
        self._modules: frozenset[str] | None = None

    @cached_property
    def _why_plain(self) -> str:
        """Why commands run without a sandbox; empty when they run in one."""
        return "it was asked for" if self.options.sandbox == "none" else sandbox.probe()

    @property
    def sealed(self) -> bool:
        return not self._why_plain

    @cached_property
    def _places(self) -> dict[str, limits.Hierarchy]:
        return limits.discover() if self.options.control_groups else {}

    @cached_property
    def _import_roots(self) -> tuple[Path, ...]:
        given = self.options.import_roots
        return sandbox.import_roots(self.options.python) if given is None else given

    @cached_property
    def _program_folders(self) -> tuple[Path, ...]:
        return sandbox.program_folders(self.options.python, self._import_roots)

    def describe(self) -> str:
        """One line for the run's banner."""
        if self.sealed:
            return "local: commands run sandboxed (bubblewrap): no network unless declared, read-only system"
        return (
            "local: commands run WITHOUT a sandbox, this is no security boundary: they can read and write what "
            f"you can, scores are not sealed ({self._why_plain})"
        )

    async def prepare(self, purpose: Purpose) -> None:
        """Raises EnvironmentUnavailable when a sandbox is demanded and does not work, or on another system."""
        if not hasattr(os, "pidfd_open"):
            raise EnvironmentUnavailable("environment local needs Linux 5.3 or later")
        if self.options.sandbox == "bubblewrap" and self._why_plain:
            raise EnvironmentUnavailable(self._why_plain, "--env local with sandbox `none` works without it")
        limits.sweep(self._places)

    async def identity(self) -> str:
        """What software commands find here, for caches of their results."""
        return await asyncio.to_thread(identity.software, self.options.python, self._import_roots)

    async def modules(self) -> frozenset[str]:
        if self._modules is None:
            self._modules = await importable(self)
        return self._modules

    async def execute(self, stage: Stage, workspace: Path, on_line: OnLine, log: Path) -> Execution:
        """See `Environment`. Raises EnvironmentUnavailable, StorageFull, and whatever `on_line` raises.

        Ending a tree blocks the event loop until it is dead, so that not even a second cancellation gets between;
        that takes milliseconds, longer only where much memory is given back.
        """
        workspace = absolute(workspace)
        await self.prepare(stage.purpose)
        refused = refusal(stage, workspace)
        if refused:
            return Execution(stage.name, "failed", 0.0, detail=refused)
        capture = Capture(log, on_line, self.options.output_cap_bytes)
        temporary = _temporary_folder(self.options.scratch) if not self.sealed else None
        try:
            return await self._run(stage, workspace, capture, temporary)
        finally:
            capture.abandon()
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    async def close(self) -> None:
        """Nothing is kept between commands."""

    async def _run(self, stage: Stage, workspace: Path, capture: Capture, temporary: Path | None) -> Execution:
        began = time.monotonic()
        running, lacking = self._start(stage, workspace, temporary)
        watch = Watch(stage, running, capture, lacking)
        try:
            stopped = await watch.until_end()
            report = running.finish()
            await watch.drain()
            seconds = time.monotonic() - began
            capture.close()
            ending = self._ending(stage, workspace, stopped, report, running.group, capture.tail())
            peak = running.group.peak_bytes() or watch.peak_bytes
        except BaseException:
            running.kill()
            raise
        finally:
            running.close()
        return Execution(
            stage=stage.name,
            end=ending.end,
            seconds=seconds,
            exit_code=ending.exit_code,
            signal=ending.signal,
            peak_mb=round(peak / 2**20, 1) if peak else None,
            detail=ending.detail or _note(lacking),
            tail=capture.tail(),
        )

    def _start(self, stage: Stage, workspace: Path, temporary: Path | None) -> tuple[Running, list[str]]:
        """Start the command; the second value names limits that control groups do not hold."""
        resources, python = stage.resources, self.options.python
        group = limits.make_group(self._places, resources, sandbox.OWN_PROCESSES if self.sealed else 0)
        lacking = [
            name
            for name, controller, wanted in (
                ("memory", "memory", resources.memory_mb),
                ("processes", "pids", resources.processes),
            )
            if wanted and controller not in group.folders
        ]
        user = os.getuid()
        tasks = resources.processes + proctree.tasks_of(user) if "processes" in lacking and user else 0
        command = [str(python), *stage.command[1:]] if stage.command[0] == "python" else list(stage.command)
        home = workspace / ".home"
        variables = command_variables(
            stage,
            os.environ,
            home=home,
            temporary=temporary or Path("/tmp"),
            path=f"{python.parent}:{SYSTEM_PATH if self.sealed else os.environ.get('PATH', SYSTEM_PATH)}",
            import_roots=self._import_roots,
            allowed=self.options.variables,
        )
        try:
            home.mkdir(exist_ok=True)
            if not self.sealed:
                return start_plain(command, workspace, variables, group, tasks), lacking
            view = sandbox.View(
                workspace=workspace,
                readable=(*self._program_folders, *sandbox.input_folders(stage), *self.options.readable),
                network=stage.network,
                gpus=bool(resources.gpus),
                home=home,
                memory_mb=resources.memory_mb,
            )
            return start_sandboxed(command, view, variables, group, tasks), lacking
        except OSError as error:
            group.remove()
            full = storage_error(workspace, error)
            raise full or EnvironmentUnavailable(f"stage {stage.name} cannot be started: {error}") from error

    def _ending(
        self, stage: Stage, workspace: Path, stopped: Stopped, report: Report, group: limits.Group, tail: str
    ) -> Ending:
        code, oom_kills = report.exit_code, group.oom_kills()
        last = (tail.strip().splitlines() or [""])[-1]
        if code is None and not stopped and not oom_kills:
            if report.error:
                raise EnvironmentUnavailable(f"stage {stage.name} cannot be started: {report.error}")
            if last.startswith("bwrap: execvp "):
                code = 127
            elif last.startswith(("bwrap: ", "sh: ", "/bin/sh: ")):
                raise EnvironmentUnavailable(f"stage {stage.name} cannot be started: {last}")
        ending = classify(stage, stopped, code, oom_kills)
        if ending.end == "failed" and code == 127:
            return Ending("failed", 127, None, f"exit code 127: {last.removeprefix('bwrap: execvp ')}")
        if ending.end != "ok":
            return ending
        return without_outputs(stage, workspace) or ending


def _note(lacking: list[str]) -> str:
    return f"limit only checked every {WATCH_SECONDS:g} s: {', '.join(lacking)}" if lacking else ""


def _temporary_folder(scratch: Path | None) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="ftagent-", dir=scratch))
    except OSError as error:
        raise (storage_error(scratch or tempfile.gettempdir(), error) or error) from error
