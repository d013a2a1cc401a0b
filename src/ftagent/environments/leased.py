"""An environment whose commands wait for a slot of their run and for the GPUs that they ask for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from ftagent.core.protocols import Environment, OnLine
from ftagent.core.types import Execution, Purpose, Stage
from ftagent.environments.leases import Leases


def default_folder() -> Path:
    """One folder per user and machine: GPUs belong to the machine, not to a project."""
    return Path(tempfile.gettempdir()) / f"ftagent-leases-{os.getuid()}"


class LeasedEnvironment:
    """Wraps `inner`. `parallel` commands at once share the GPUs that a stage names evenly."""

    def __init__(self, inner: Environment, folder: Path, parallel: int = 1) -> None:
        self.name = inner.name
        self.sealed = inner.sealed
        self._inner = inner
        self._folder = folder
        self._leases = Leases(folder)
        self._parallel = parallel
        self._pool = f"slot-{os.getpid()}"

    async def prepare(self, purpose: Purpose) -> None:
        await self._inner.prepare(purpose)

    async def identity(self) -> str:
        """What software commands find; empty where `inner` does not tell."""
        tell: Callable[[], Awaitable[str]] | None = getattr(self._inner, "identity", None)
        return await tell() if tell else ""

    async def modules(self) -> frozenset[str]:
        return await self._inner.modules()

    async def execute(self, stage: Stage, workspace: Path, on_line: OnLine, log: Path) -> Execution:
        """See `Environment.execute`; also raises what `Leases.hold` raises."""
        async with AsyncExitStack() as held:
            slots = [str(number) for number in range(self._parallel)]
            await held.enter_async_context(self._leases.hold(self._pool, slots))
            gpus = stage.resources.gpus
            if gpus:
                count = max(1, len(gpus) // self._parallel)
                taken = await held.enter_async_context(self._leases.hold("gpu", gpus, count))
                stage = replace(stage, resources=replace(stage.resources, gpus=taken))
            return await self._inner.execute(stage, workspace, on_line, log)

    async def close(self) -> None:
        await self._inner.close()
        for lock in self._folder.glob(f"{self._pool}-*.lock"):
            lock.unlink(missing_ok=True)
