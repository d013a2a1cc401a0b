"""An environment whose stages can ask language models, if they declare that they want to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ftagent.core.protocols import Environment, OnLine
from ftagent.core.types import Execution, Purpose, Stage

COMMAND = ("python", "-P", "-m", "ftagent.toolkit.broker", "--")
"""-P: no file of the workspace can stand in for a module."""


class Broker(Protocol):
    """An endpoint for one stage."""

    @property
    def variables(self) -> Mapping[str, str]:
        """For `COMMAND`."""
        ...

    async def watch(self) -> None:
        """Never returns; raises what must end the stage at once."""
        ...

    def conclude(self, ok: bool) -> None:
        """After a stage that ended well or not. Raises what was no fault of its code."""
        ...


OpenBroker = Callable[[Path], AbstractAsyncContextManager[Broker]]
"""Serves the stage in a workspace while the context is open; it leaves nothing there."""


class BrokeredEnvironment:
    """Wraps `inner`. Stages without `llm` are executed as they are."""

    def __init__(self, inner: Environment, open_broker: OpenBroker) -> None:
        self.name = inner.name
        self._inner = inner
        self._open_broker = open_broker

    @property
    def sealed(self) -> bool:
        return self._inner.sealed

    async def prepare(self, purpose: Purpose) -> None:
        await self._inner.prepare(purpose)

    async def modules(self) -> frozenset[str]:
        return await self._inner.modules()

    async def execute(self, stage: Stage, workspace: Path, on_line: OnLine, log: Path) -> Execution:
        """See `Environment.execute`; also raises what the broker raises when a stage cannot have its replies."""
        if not stage.llm or not stage.command:
            return await self._inner.execute(stage, workspace, on_line, log)
        async with self._open_broker(workspace) as broker:
            variables = {**stage.variables, **broker.variables}
            wrapped = replace(stage, command=(*COMMAND, *stage.command), variables=variables)
            try:
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(broker.watch())
                    execution = await self._inner.execute(wrapped, workspace, on_line, log)
                    watching.cancel()
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from failed
        broker.conclude(execution.ok)
        return execution

    async def close(self) -> None:
        await self._inner.close()
