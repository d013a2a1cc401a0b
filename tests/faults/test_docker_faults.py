"""Faults of a Docker Engine and its containers: none is blamed on the code, nothing is left running (rows 8, 30, 31)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from ftagent.core.errors import EnvironmentUnavailable, StorageFull
from ftagent.core.types import Execution, Stage
from ftagent.environments.conformance_checks import BEAT
from ftagent.environments.docker import DockerEnvironment, DockerOptions
from ftagent.environments.docker_engine import Engine, address
from ftagent.environments.docker_image import ImageSource
from ftagent.environments.docker_leftovers import OURS, reap
from support.docker_images import PYTHON, OwnEngine, environment, own_engine, why_no_image

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]
FOREVER = BEAT + "print('beats')\ntime.sleep(600)"


@pytest.fixture(autouse=True)
def _image() -> None:
    if why := why_no_image():
        pytest.skip(why)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(address(os.environ))
    yield made
    made.close()


def python(script: str, **stage: object) -> Stage:
    return Stage("test", "debug", ("python", "-c", script), **{"time_limit": 60.0, **stage})  # type: ignore[arg-type]


def assert_silent(workspace: Path, within: float = 5.0) -> None:
    """No process writes to `beat` any more."""
    beat, deadline = workspace / "beat", time.monotonic() + within
    while True:
        size = beat.stat().st_size
        time.sleep(0.2)
        if beat.stat().st_size == size:
            return
        assert time.monotonic() < deadline, "a process of the command still lives"


def ours(engine: Engine, workspace: Path | None = None) -> list[str]:
    """Names of our containers; those that see `workspace` alone when it is given."""
    found = engine.containers(f"{OURS}=1")
    return [
        str(container["Names"][0]).removeprefix("/")
        for container in found
        if workspace is None or str(workspace) in {mount.get("Source") for mount in container["Mounts"]}
    ]


async def execute(
    made: DockerEnvironment, workspace: Path, script: str, on_line: Callable[[str], None] = print, **stage: object
) -> Execution:
    try:
        return await made.execute(python(script, **stage), workspace, on_line, workspace.parent / "log")
    finally:
        await made.close()


async def test_a_container_that_somebody_kills_is_lost(workspace: Path, engine: Engine) -> None:
    def kill(_: str) -> None:
        (name,) = ours(engine, workspace)
        engine.client.kill(name)

    done = await execute(environment(), workspace, FOREVER, kill)
    assert (done.end, done.exit_code) == ("lost", None)
    assert "ended the container" in done.detail
    assert_silent(workspace)
    assert ours(engine, workspace) == []


async def test_a_container_that_somebody_removes_is_lost(workspace: Path, engine: Engine) -> None:
    def remove(_: str) -> None:
        (name,) = ours(engine, workspace)
        engine.remove(name)

    done = await execute(environment(), workspace, FOREVER, remove)
    assert done.end == "lost"
    assert "the result is unknown" in done.detail
    assert_silent(workspace)


async def test_a_killed_engine_is_lost_and_the_next_command_waits_for_it(workspace: Path) -> None:
    with own_engine() as own:
        made = DockerEnvironment(DockerOptions(ImageSource(PYTHON), address=own.address))
        done = await made.execute(python(FOREVER), workspace, lambda _: own.kill(), workspace.parent / "log")
        assert (done.end, done.exit_code) == ("lost", None)
        assert "stopped answering" in done.detail
        assert_silent(workspace)
        again = threading.Timer(1.0, own.start)
        again.start()
        try:
            done = await made.execute(python("print(1)"), workspace, print, workspace.parent / "log")
        finally:
            again.join()
        assert done.end == "ok", done
        await made.close()
        left = Engine(own.address)
        assert ours(left) == []
        left.close()
