"""Environment `conda`: commands with the Python of a conda environment, in the sandbox of `local` where that works."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ftagent.core.errors import EnvironmentUnavailable, RequestError
from ftagent.core.files import storage_error
from ftagent.core.protocols import OnLine
from ftagent.core.types import Execution, Purpose, Stage
from ftagent.environments import conda_program, sandbox
from ftagent.environments.conda_program import Program
from ftagent.environments.conda_store import SPECS, Spec, Store
from ftagent.environments.importable import importable
from ftagent.environments.local import LocalEnvironment, LocalOptions
from ftagent.environments.variables import SYSTEM_PATH

PURPOSES = ("llm", "tabular")
SPEC_SUFFIXES = (".yaml", ".yml", ".txt", ".lock")
ACTIVATION_SECONDS = 60.0
_ACTIVATE = 'for script in "$1"/etc/conda/activate.d/*.sh; do [ ! -r "$script" ] || . "$script" >&2; done; exec env -0'


@dataclass(frozen=True)
class CondaOptions:
    """Which environment commands run in."""

    purpose: Literal["llm", "tabular"] = "llm"
    """Whose specification is taken where `environment` names none."""
    environment: str = ""
    """Name or folder of an environment that exists and is only used, or a specification file (FTAGENT_CONDA_ENV)."""
    folder: Path = Path("ftagent_files/conda")
    """Where environments are made (FT_FILE_PATH/conda)."""
    packages: tuple[Path, ...] = ()
    """Further folders of importable packages, read-only; they must suit the environment's Python."""
    local: LocalOptions = field(default_factory=LocalOptions)
    """Limits and sandbox. `python` and `import_roots` are replaced."""


class CondaEnvironment:
    """Implements `Environment`. Makes its environment on first use, with progress to `on_line`.

    Making one of these raises RequestError: no conda program, no such environment, a specification that is none.
    """

    name = "conda"

    def __init__(self, options: CondaOptions | None = None, on_line: OnLine | None = None) -> None:
        self.options = options or CondaOptions()
        self._on_line = on_line or (lambda _: None)
        self._store: Store | None = None
        self._program: Program | None = None
        prefix = Path(self.options.environment).expanduser()
        if not (prefix / "conda-meta").is_dir() or not self.options.environment:
            self._program = conda_program.find(os.environ)
            found = _spec_or_prefix(self.options, self._program)
            if isinstance(found, Spec):
                self._store = Store(self.options.folder, self.options.purpose, found, self._program)
            prefix = found if isinstance(found, Path) else self._store.prefix if self._store else prefix
        self.prefix = prefix.absolute()
        """The environment's folder; it need not be there yet."""
        self._links = self.options.folder.absolute() / f"toolkit-{_short(str(sandbox.package_folder()))}"
        self._variables: dict[str, str] | None = None
        self._modules: frozenset[str] | None = None
        self._inner = LocalEnvironment(
            replace(
                self.options.local,
                python=self.prefix / "bin" / "python",
                import_roots=(self._links, *self.options.packages),
                readable=(*self.options.local.readable, sandbox.package_folder()),
            )
        )

    @property
    def sealed(self) -> bool:
        return self._inner.sealed

    @property
    def python(self) -> Path:
        return self._inner.options.python

    async def identity(self) -> str:
        """What software commands find here, for caches of their results; empty before it is made."""
        return f"{self.prefix} {await self._inner.identity()}" if self.ready() else ""

    def describe(self) -> str:
        """One line for the run's banner."""
        made = f"made with {self._program.name} ({self._program.path})" if self._store and self._program else "yours"
        where = f"conda: environment {self.prefix.name} ({made})"
        return f"{where}; {self._inner.describe().removeprefix('local: ')}"

    def ready(self) -> bool:
        """Whether commands can be executed without anything being made."""
        return self._store.complete() if self._store else os.access(self.python, os.X_OK)

    async def build(self, on_line: OnLine) -> bool:
        """Make the environment if it is not there; True when it was made now.

        Raises EnvironmentUnavailable with conda's reason, StorageFull.
        """
        return await self._store.ensure(on_line) if self._store else False

    async def prepare(self, purpose: Purpose) -> None:
        """Raises EnvironmentUnavailable, StorageFull."""
        await self._inner.prepare(purpose)
        if self._variables is None or not self.ready():
            await self.build(self._on_line)
            if not self.ready():
                raise EnvironmentUnavailable(f"conda environment {self.prefix} has no bin/python any more")
            _link_package(self._links)
            self._variables = await asyncio.to_thread(_activation, self.prefix)

    async def execute(self, stage: Stage, workspace: Path, on_line: OnLine, log: Path) -> Execution:
        """See `Environment`. Raises what `prepare` and `LocalEnvironment.execute` raise."""
        await self.prepare(stage.purpose)
        stage = replace(stage, variables={**(self._variables or {}), **stage.variables})
        return await self._inner.execute(stage, workspace, on_line, log)

    async def modules(self) -> frozenset[str]:
        if self._modules is None:
            self._modules = await importable(self)
        return self._modules

    async def close(self) -> None:
        await self._inner.close()


def _spec_or_prefix(options: CondaOptions, program: Program) -> Spec | Path:
    """What `options.environment` means. Raises RequestError."""
    wished = options.environment
    if not wished:
        return Spec.read(SPECS / f"{options.purpose}.yaml")
    path = Path(wished).expanduser()
    if path.suffix in SPEC_SUFFIXES or path.is_file():
        return Spec.read(path)
    if "/" in wished:
        raise RequestError(f"FTAGENT_CONDA_ENV={wished}: is no conda environment and no specification file")
    there = program.environments()
    for prefix in there:
        if prefix.name == wished and (prefix / "bin" / "python").exists():
            return prefix
    names = ", ".join(sorted(prefix.name for prefix in there)) or "none"
    raise RequestError(
        f"FTAGENT_CONDA_ENV={wished}: {program.name} knows no such environment with Python; there: {names}"
    )


def _link_package(links: Path) -> None:
    """A folder for PYTHONPATH in which nothing but this package is found. Raises StorageFull.

    The folder that the package lies in may be the host's site-packages, made for another Python.
    """
    package, temporary = sandbox.package_folder(), links / f".{os.getpid()}"
    try:
        links.mkdir(parents=True, exist_ok=True)
        if not (links / package.name).exists():
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(package)
            temporary.replace(links / package.name)
    except OSError as error:
        raise (storage_error(links, error) or error) from error


def _activation(prefix: Path) -> dict[str, str]:
    """Variables with which the packages of an environment want to be used: what activating it would set.

    Raises EnvironmentUnavailable.
    """
    base = {"PATH": f"{prefix}/bin:{SYSTEM_PATH}", "CONDA_PREFIX": str(prefix), "CONDA_DEFAULT_ENV": prefix.name}
    found = {name: value for name, value in base.items() if name != "PATH"}
    if not any((prefix / "etc/conda/activate.d").glob("*.sh")):
        return found
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", _ACTIVATE, "sh", str(prefix)], env=base, capture_output=True, check=False,
            timeout=ACTIVATION_SECONDS, cwd="/", stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentUnavailable(f"conda environment {prefix} cannot be activated: {error}") from error
    if done.returncode:
        why = conda_program.reason(done.stderr.decode(errors="replace"))
        raise EnvironmentUnavailable(f"conda environment {prefix} cannot be activated: {why}")
    return {**found, **_set(done.stdout, base)}


def _set(printed: bytes, base: Mapping[str, str]) -> dict[str, str]:
    """Of what `env -0` printed, what is not the shell's own."""
    pairs = (os.fsdecode(entry).partition("=") for entry in printed.split(b"\0") if entry)
    own = {"PWD", "OLDPWD", "SHLVL", "_", "PATH"}
    return {name: value for name, _, value in pairs if name not in own and base.get(name) != value}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
