"""Conda environments that ftagent makes: one folder per purpose and specification, complete or made again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from ftagent.core.errors import EnvironmentUnavailable, RequestError, StorageFull
from ftagent.core.files import atomic_write, storage_error
from ftagent.core.protocols import OnLine
from ftagent.core.types import Execution, Resources, Stage
from ftagent.environments import conda_program
from ftagent.environments.conda_program import Program
from ftagent.environments.leases import lock_file
from ftagent.environments.local import LocalEnvironment, LocalOptions

SPECS = Path(__file__).with_name("specs")
MARKER = ".ftagent-complete"
"""In an environment's folder, written last. Not in conda-meta: conda reads everything there."""
PULSE_SECONDS = 20.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Spec:
    """A specification of packages as it was read: what conda is told, and the identity of the result."""

    path: Path
    explicit: bool
    """A list of exact packages (`conda list --explicit`) and no YAML."""
    digest: str

    @classmethod
    def read(cls, path: Path) -> Spec:
        """Raises RequestError for a file that conda could not read either."""
        import yaml

        try:
            content = path.read_bytes()
        except OSError as error:
            raise RequestError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
        digest = hashlib.sha256(content).hexdigest()
        if b"@EXPLICIT" in content.split(b"\n"):
            return cls(path.absolute(), True, digest)
        try:
            values = yaml.safe_load(content)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RequestError(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict) or not isinstance(values.get("dependencies"), list):
            raise RequestError(
                f"{path}: is no conda specification; a YAML file with a list `dependencies` is wanted, or a list of "
                "`conda list --explicit`"
            )
        return cls(path.absolute(), False, digest)


class Store:
    """The environment of `spec` in `folder`/<purpose>-<hash>; making one of these touches no disk."""

    def __init__(self, folder: Path, purpose: str, spec: Spec, program: Program) -> None:
        self._folder = folder.absolute()
        self._spec = spec
        self._program = program
        self.name = f"{purpose}-{spec.digest[:12]}"
        self.prefix = self._folder / self.name
        self.python = self.prefix / "bin" / "python"

    def complete(self) -> bool:
        """Whether it is there, was finished, and lies where it was made (its scripts hold that path)."""
        try:
            made = json.loads((self.prefix / MARKER).read_text())
        except (OSError, ValueError):
            return False
        return made == self._identity() and os.access(self.python, os.X_OK)

    async def ensure(self, on_line: OnLine) -> bool:
        """Make it unless it is complete; True when it was made now. One process makes it, others wait.

        Raises EnvironmentUnavailable when conda cannot, StorageFull.
        """
        if self.complete():
            return False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            async with self._alone(on_line):
                if self.complete():
                    return False
                await self._make(on_line)
                return True
        except OSError as error:
            raise storage_error(self._folder, error) or EnvironmentUnavailable(
                f"{self._folder}: no environment can be made here: {error}"
            ) from error

    @contextlib.asynccontextmanager
    async def _alone(self, on_line: OnLine) -> AsyncIterator[None]:
        lock, told = self._folder / f"{self.name}.lock", False
        while (descriptor := lock_file(lock)) is None:
            if not told:
                on_line(f"waiting for another process that makes the conda environment {self.name}")
            told = True
            await asyncio.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            os.close(descriptor)

    async def _make(self, on_line: OnLine) -> None:
        if self.prefix.exists():
            on_line(f"conda environment {self.name} is half made or was moved: it is made again")
            shutil.rmtree(self.prefix)
        on_line(f"making conda environment {self.name} from {self._spec.path} with {self._program.path}")
        began = time.monotonic()
        try:
            await self._create(on_line)
            version = await self._record()
        except (EnvironmentUnavailable, StorageFull):
            # What a cancellation leaves is found by its missing marker: deleting gigabytes would hold that up.
            shutil.rmtree(self.prefix, ignore_errors=True)
            raise
        atomic_write(self.prefix / MARKER, json.dumps(self._identity()), durable=True)
        on_line(f"conda environment {self.name} is ready: Python {version}, {time.monotonic() - began:.0f} s")
        self._tell_older(on_line)

    async def _create(self, on_line: OnLine) -> None:
        command = self._program.create(self.prefix, self._spec.path, self._spec.explicit)
        pulse = asyncio.ensure_future(_pulse(on_line))
        log = self._folder / f"{self.name}.log"
        try:
            done = await self._run("create", command, on_line, log)
        finally:
            pulse.cancel()
        why = conda_program.reason(log.read_text(errors="replace"))
        if not done.ok and "No space left on device" in done.tail:
            raise StorageFull(f"{self.prefix}: no space left for the conda environment; its log is {log}")
        if not done.ok or not os.access(self.python, os.X_OK):
            why = why if done.end == "failed" else done.detail or "it left no bin/python"
            raise EnvironmentUnavailable(
                f"{self._program.name} cannot make an environment from {self._spec.path}: {why}", f"its log is {log}"
            )
        if Spec.read(self._spec.path).digest != self._spec.digest:
            raise EnvironmentUnavailable(f"{self._spec.path} was changed while an environment was made from it")

    async def _record(self) -> str:
        """Write what was installed beside the environment, as a specification of its own; Python's version."""
        lines: list[str] = []
        ask = "import platform; print(platform.python_version())"
        done = await self._run("python", (str(self.python), "-I", "-c", ask), lines.append, self._log("python"))
        if not done.ok:
            raise EnvironmentUnavailable(f"{self.python} does not run: {conda_program.reason(done.tail)}")
        log = self._log("export")
        if (await self._run("export", self._program.export(self.prefix), lambda _: None, log)).ok:
            kept = [line for line in log.read_text().splitlines() if not line.startswith(("name:", "prefix:"))]
            atomic_write(self._folder / f"{self.name}.lock.yaml", "\n".join([*kept, ""]))
        return lines[-1] if lines else "?"

    async def _run(self, name: str, command: tuple[str, ...], on_line: OnLine, log: Path) -> Execution:
        """A command of conda in a process tree that dies with us."""
        host = LocalEnvironment(LocalOptions(sandbox="none", import_roots=()))
        stage = Stage(name, "full", command, resources=Resources(processes=0), network=True,
                      variables=conda_program.variables(os.environ))  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="ftagent-") as folder:
            return await host.execute(stage, Path(folder), on_line, log)

    def _log(self, name: str) -> Path:
        return self._folder / f"{self.name}.{name}.log"

    def _identity(self) -> dict[str, str]:
        return {"spec": self._spec.digest, "prefix": str(self.prefix)}

    def _tell_older(self, on_line: OnLine) -> None:
        purpose = self.name.rpartition("-")[0]
        older = sorted(path.parent.name for path in self._folder.glob(f"{purpose}-*/{MARKER}"))
        for name in older:
            if name != self.name:
                on_line(f"{self._folder / name} is of another specification; delete it if nothing uses it")


async def _pulse(on_line: OnLine) -> None:
    """conda can be silent for minutes."""
    began = time.monotonic()
    while True:
        await asyncio.sleep(PULSE_SECONDS)
        on_line(f"conda is at work since {time.monotonic() - began:.0f} s")
