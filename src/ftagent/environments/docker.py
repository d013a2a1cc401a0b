"""Environment `docker`: every command in a container of its own, confined and removed with all that it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ftagent.core.errors import EnvironmentUnavailable
from ftagent.core.protocols import OnLine
from ftagent.core.types import Execution, Purpose, Stage
from ftagent.environments.docker_config import (
    EngineFacts,
    Identity,
    Image,
    container_config,
    gpu_variables,
    identity_of,
    import_roots,
)
from ftagent.environments.docker_ending import Found, conclude
from ftagent.environments.docker_engine import Attached, Engine, EngineGone, address, why_unreachable
from ftagent.environments.docker_image import ImageSource, make
from ftagent.environments.docker_leftovers import labels, leftovers, reap
from ftagent.environments.docker_stream import Follow, read_report
from ftagent.environments.identity import container_software
from ftagent.environments.importable import importable
from ftagent.environments.output import Capture
from ftagent.environments.ownership import HandedOver, unreadable
from ftagent.environments.sandbox import NOBODY
from ftagent.environments.stages import absolute, refusal
from ftagent.environments.threads import uninterrupted
from ftagent.environments.variables import command_variables

OF_THE_HOST = ("LANG", "LANGUAGE", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables whose values name what only the host has; those of the image hold instead."""
RETURN_SECONDS = 30.0
"""How long an engine that answered before may be away, for example because it is being restarted."""


def _silent(text: str) -> None: ...


@dataclass(frozen=True)
class DockerOptions:
    """How `DockerEnvironment` works."""

    source: ImageSource
    make_image: bool = False
    """Build or pull the image when it is not there."""
    packages: tuple[Path, ...] = ()
    """Folders of the host with Python packages for images without; they must be made for the image's Python."""
    python: str = "python3"
    """The image's interpreter."""
    address: str = ""
    """Of the engine; empty is where docker's own command line would look."""
    variables: tuple[str, ...] = ()
    """Names of further variables of the host that reach a command."""
    output_cap_bytes: int = 8 * 1024 * 1024
    """Of a longer output the log keeps the first and the last half of this."""


@dataclass(frozen=True)
class _Ready:
    """What is known of the engine once it was asked."""

    image: Image
    facts: EngineFacts
    who: Identity
    hands: HandedOver


class DockerEnvironment:
    """Implements `Environment`. `note` hears what is done before the first command can start."""

    name = "docker"
    sealed = True

    def __init__(self, options: DockerOptions, note: OnLine | None = None) -> None:
        self.options = options
        self._note = note or _silent
        self._engine = Engine(options.address or address(os.environ))
        self._ready: _Ready | None = None
        self._preparing = asyncio.Lock()
        self._unremoved: set[str] = set()
        self._modules: frozenset[str] | None = None

    @property
    def address(self) -> str:
        """Of the engine."""
        return self._engine.address

    def why_unreachable(self) -> str:
        """Empty when an engine answers, else one line. Imports nothing."""
        return why_unreachable(self._engine.address)

    def leftovers(self, remove: bool) -> tuple[list[str], list[str]]:
        """Containers of dead runs of ours: names of those that are there, and of those that were removed now.

        Raises EnvironmentUnavailable.
        """
        try:
            removed = [found.name for found in reap(self._engine)] if remove else []
            return [found.name for found in leftovers(self._engine)], removed
        finally:
            self._engine.close()

    def ready(self) -> bool:
        """Whether commands can be executed without anything being made. Raises EnvironmentUnavailable."""
        try:
            return self._engine.image(self.options.source.name) is not None
        finally:
            self._engine.close()

    def version(self) -> str:
        """Of the engine. Raises EnvironmentUnavailable."""
        try:
            return self._engine.facts().version
        finally:
            self._engine.close()

    async def build(self, on_line: OnLine, again: bool = False) -> bool:
        """Make the image if it is not there, or `again`; True when it was made now. Raises EnvironmentUnavailable."""
        if not again and await uninterrupted(self.ready):
            return False
        try:
            await uninterrupted(partial(make, self._engine, self.options.source, on_line, may_make=True, again=again))
        finally:
            self._engine.close()
        return True

    async def identity(self) -> str:
        """What software commands find here, for caches of their results."""
        ready = await self._prepared()
        return await uninterrupted(container_software, ready.image.id, self.options.packages)

    async def modules(self) -> frozenset[str]:
        if self._modules is None:
            self._modules = await importable(self)
        return self._modules

    def describe(self) -> str:
        """One line for the run's banner."""
        return (
            f"docker: commands run in containers of image {self.options.source.name} (no network unless declared, "
            "read-only system, no capabilities)"
        )

    async def prepare(self, purpose: Purpose) -> None:
        """Once: find the engine and the image, remove what dead processes of ours left.

        Raises EnvironmentUnavailable where either is missing, RequestError for an image that cannot be made.
        """
        await self._prepared()

    async def execute(self, stage: Stage, workspace: Path, on_line: OnLine, log: Path) -> Execution:
        """See `Environment`. Raises EnvironmentUnavailable, StorageFull, and whatever `on_line` raises."""
        workspace = absolute(workspace)
        ready = await self._prepared()
        if refused := refusal(stage, workspace):
            return Execution(stage.name, "failed", 0.0, detail=refused)
        self._check_inputs(stage, ready)
        capture = Capture(log, on_line, self.options.output_cap_bytes)
        try:
            async with ready.hands.lent(workspace):
                return await self._run(stage, workspace, capture, ready)
        finally:
            capture.abandon()

    async def close(self) -> None:
        """Remove containers that could not be removed before."""
        await uninterrupted(self._sweep)
        self._engine.close()
        self._ready = None

    async def _prepared(self) -> _Ready:
        async with self._preparing:
            if self._ready is None:
                self._ready = await uninterrupted(self._ask)
        return self._ready

    def _ask(self) -> _Ready:
        facts = self._engine.facts()
        image = make(self._engine, self.options.source, self._note, may_make=self.options.make_image)
        who = identity_of(os.getuid(), os.getgid(), os.getgroups(), facts)
        reap(self._engine)
        return _Ready(image, facts, who, HandedOver(who.uid, who.gid))

    async def _run(self, stage: Stage, workspace: Path, capture: Capture, ready: _Ready) -> Execution:
        name = f"ftagent-{os.getpid()}-{secrets.token_hex(6)}"
        config = container_config(
            stage, workspace, ready.image, ready.who, ready.facts, self._variables(stage, workspace, ready.image),
            labels(stage, workspace), python=self.options.python, packages=self.options.packages,
        )  # fmt: skip
        connections: list[Attached] = []
        try:
            warnings = await self._create(name, config)
            # Kept from within the thread: a cancellation loses what it returns.
            await uninterrupted(lambda: connections.append(self._engine.attach(name)))
            began = time.monotonic()
            await uninterrupted(self._engine.start, name)
            follow = Follow(connections[0].socket, capture)
            ended = await follow.until_end(stage.time_limit)
            seconds = time.monotonic() - began
            capture.close()
            found = Found(ended, read_report(follow.said), follow.said, capture.tail())
            ending = await uninterrupted(conclude, self._engine, name, stage, workspace, found)
        finally:
            for connection in connections:
                connection.close()
            await uninterrupted(self._remove, name)
        return Execution(
            stage=stage.name,
            end=ending.end,
            seconds=seconds,
            exit_code=ending.exit_code,
            signal=ending.signal,
            peak_mb=round(found.peak_bytes / 2**20, 1) if found.peak_bytes else None,
            detail=ending.detail or _discarded(warnings),
            tail=capture.tail(),
        )

    async def _create(self, name: str, config: dict[str, Any]) -> tuple[str, ...]:
        """Make the container; an engine that has gone away may take a while to come back."""
        deadline = time.monotonic() + RETURN_SECONDS
        while True:
            try:
                await uninterrupted(self._sweep)
                return await uninterrupted(self._engine.create, name, config)
            except EngineGone:
                self._unremoved.add(name)  # it may have been made before the answer was lost
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.5)

    def _remove(self, name: str) -> None:
        """Remove a container now, or when the engine is back."""
        try:
            self._engine.remove(name)
        except EnvironmentUnavailable:
            self._unremoved.add(name)

    def _sweep(self) -> None:
        for name in tuple(self._unremoved):
            with contextlib.suppress(EnvironmentUnavailable):
                self._engine.remove(name)
                self._unremoved.discard(name)

    def _variables(self, stage: Stage, workspace: Path, image: Image) -> Mapping[str, str]:
        host = {
            name: value for name, value in os.environ.items() if name not in OF_THE_HOST and not name.startswith("LC_")
        }
        made = command_variables(
            stage, host, home=workspace / ".home", temporary=Path("/tmp"), path=image.path,
            import_roots=import_roots(self.options.packages), allowed=self.options.variables,
        )  # fmt: skip
        return {**made, **gpu_variables(stage.resources.gpus)}

    def _check_inputs(self, stage: Stage, ready: _Ready) -> None:
        if ready.who.uid != NOBODY or os.getuid() != 0:
            return
        for mount in stage.mounts:
            if path := unreadable(Path(mount.source), NOBODY):
                raise EnvironmentUnavailable(
                    f"stage {stage.name}: input {mount.name}: {path} can be read by root alone, who is nobody inside",
                    f"`chmod -R o+rX {mount.source}`",
                )


def _discarded(warnings: tuple[str, ...]) -> str:
    """Limits that the engine cannot enforce."""
    return "; ".join(f"limit not enforced: {warning}" for warning in warnings if "discarded" in warning.lower())
