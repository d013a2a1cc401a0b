"""An environment that does not repeat a reusable stage whose result it knows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from ftagent.core.errors import StageRefused
from ftagent.core.files import make_folder, storage_error, temporary_name
from ftagent.core.protocols import Environment, OnLine
from ftagent.core.types import Execution, Purpose, Stage
from ftagent.core.workspace import Workspace
from ftagent.environments import snapshot
from ftagent.environments.snapshot import Snapshot
from ftagent.environments.stage_cache import Entry, StageCache
from ftagent.environments.threads import uninterrupted
from ftagent.environments.variables import of_host

FROM_CACHE = "from the cache"


@runtime_checkable
class Identified(Environment, Protocol):
    """An environment that tells what software its commands find. One that does not is never cached."""

    async def identity(self) -> str:
        """Image, interpreter and packages; empty when that is not known (now)."""
        ...


class CachedEnvironment:
    """Wraps `inner`. What of a stage decides about its result is listed in `_plan`."""

    def __init__(self, inner: Identified, cache: StageCache) -> None:
        self.name = inner.name
        self._inner = inner
        self._cache = cache

    @property
    def sealed(self) -> bool:
        return self._inner.sealed

    async def prepare(self, purpose: Purpose) -> None:
        await self._inner.prepare(purpose)

    async def execute(self, stage: Stage, workspace: Path, on_line: OnLine, log: Path) -> Execution:
        """See `Environment.execute`. Raises what that of `inner` raises, StorageFull."""
        if not stage.reusable or stage.llm or stage.network:
            return await self._inner.execute(stage, workspace, on_line, log)
        identity, workspace, began = await self._inner.identity(), _absolute(workspace), time.monotonic()
        planned = await uninterrupted(self._plan, stage, workspace, identity) if identity else None
        if planned is None:
            return await self._inner.execute(stage, workspace, on_line, log)
        key, before = planned
        found = await uninterrupted(self._restore, key, workspace, log)
        if found is not None:
            on_line(f"{FROM_CACHE}: an equal stage took {found.seconds:.1f} s")
            return replace(found, stage=stage.name, seconds=time.monotonic() - began, detail=FROM_CACHE)
        execution = await self._inner.execute(stage, workspace, on_line, log)
        if execution.ok:
            await uninterrupted(self._keep, key, execution, before, workspace, log)
        return execution

    async def modules(self) -> frozenset[str]:
        return await self._inner.modules()

    async def close(self) -> None:
        await self._inner.close()

    def _plan(self, stage: Stage, workspace: Path, identity: str) -> tuple[str, Snapshot] | None:
        """The key and what is in the workspace; None where there is something that no key can stand for."""
        try:
            before = snapshot.take(workspace)
            sources = [[mount.name, snapshot.identity(Path(mount.source))] for mount in stage.mounts]
        except (StageRefused, OSError):
            # The command may still be able to work with it, or its environment knows what to say of it.
            return None
        if any(item.kind not in ("file", "folder") for item in before.values()):
            return None
        values = {
            "environment": [self.name, self.sealed, identity],
            "command": stage.command,
            "files": dict(stage.files),
            "variables": dict(stage.variables),
            "host": of_host(os.environ),
            "resources": [stage.resources.cpus, len(stage.resources.gpus)],
            "outputs": stage.outputs,
            "workspace": [[path, item.kind, item.content, item.executable] for path, item in before.items()],
            "mounts": sources,
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest(), before

    def _restore(self, key: str, workspace: Path, log: Path) -> Execution | None:
        """Bring workspace and log to what they were after the stage. Raises StorageFull, StageRefused."""
        # Beside the workspace: everything is checked before the first file is moved.
        temporary = workspace.parent / temporary_name()
        try:
            entry = self._cache.fetch(key, temporary)
            if entry is None:
                return None
            make_folder(log.parent)
            _apply(entry, Workspace(workspace))
            shutil.copyfile(entry.log, log)
            return entry.execution
        except OSError as error:
            raise (storage_error(workspace, error) or error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _keep(self, key: str, execution: Execution, before: Snapshot, workspace: Path, log: Path) -> None:
        # A result that cannot be kept is still a result: a full or foreign cache folder is no fault of the run.
        with contextlib.suppress(StageRefused, OSError):
            changed = snapshot.changes(before, snapshot.take(workspace))
            if changed is not None:
                self._cache.store(key, execution, changed, Workspace(workspace).open_file, log)


def _apply(entry: Entry, workspace: Workspace) -> None:
    for path, item in entry.items.items():
        workspace.adopt(path, entry.files[path] if item.kind == "file" else None)


def _absolute(path: Path) -> Path:
    return path.absolute()
