"""Faults of a Docker Engine and its containers: none is blamed on the code, none outlives us (rows 8, 30, 31)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ftagent.core.errors import EnvironmentUnavailable, StorageFull
from ftagent.core.types import Execution, Stage
from ftagent.environments.conformance_checks import BEAT
from ftagent.environments.docker import DockerEnvironment, DockerOptions
from ftagent.environments.docker_engine import Engine, address
from ftagent.environments.docker_image import ImageSource
from ftagent.environments.docker_leftovers import OURS
from support.docker_images import PYTHON, environment, need_image, own_engine, owners, processes

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]
FOREVER = BEAT + "print('beats')\ntime.sleep(600)"


@pytest.fixture(autouse=True)
def _image() -> None:
    need_image()


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


def system(*command: str) -> int:
    return subprocess.run(command, check=False).returncode


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
        again = threading.Timer(1.0, own.start)
        again.start()
        try:
            done = await made.execute(python("print(1)"), workspace, print, workspace.parent / "log")
        finally:
            again.join()
        assert done.end == "ok", done
        assert processes(str(workspace)) == []
        await made.close()
        left = Engine(own.address)
        assert ours(left) == []
        left.close()


async def test_an_engine_that_never_answered_is_told_at_once(workspace: Path) -> None:
    made = DockerEnvironment(DockerOptions(ImageSource(PYTHON), address=f"unix://{workspace}/docker.sock"))
    with pytest.raises(EnvironmentUnavailable, match=r"no Docker Engine answers at .*DOCKER_HOST"):
        await made.prepare("full")
    await made.close()


async def test_an_image_that_was_removed_meanwhile_is_told(workspace: Path, engine: Engine) -> None:
    name = f"ftagent-test/removed:{os.getpid()}"
    engine.client.tag(PYTHON, *name.split(":"))
    made = environment(source=ImageSource(name))
    await made.prepare("full")
    engine.client.remove_image(name)
    # The same content is there under another name, so that commands still run.
    assert (await execute(made, workspace, "print()")).end == "ok"
    with pytest.raises(EnvironmentUnavailable, match=rf"image {name} is not there; `ftagent env build docker`"):
        await made.prepare("full")
    await made.close()


async def test_a_full_disk_is_not_the_codes_failure(tmp_path: Path) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    if system("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)):
        pytest.skip("mounting a tmpfs needs root")
    try:
        workspace = disk / "workspace"
        workspace.mkdir()
        made = environment()
        with pytest.raises(StorageFull, match="no space left on its disk"):
            await made.execute(python("open('big', 'wb').write(bytes(8 << 20))"), workspace, print, tmp_path / "log")
        (workspace / "big").unlink()
        done = await made.execute(python("raise SystemExit(3)"), workspace, print, tmp_path / "log")
        assert (done.end, done.exit_code) == ("failed", 3)
        await made.close()
    finally:
        assert system("umount", "-l", str(disk)) == 0


async def test_a_listener_that_raises_ends_the_container(workspace: Path, engine: Engine) -> None:
    def listener(_: str) -> None:
        raise ZeroDivisionError("from the listener")

    with pytest.raises(ZeroDivisionError, match="from the listener"):
        await execute(environment(), workspace, FOREVER, listener)
    assert_silent(workspace)
    assert ours(engine, workspace) == []


async def test_a_full_disk_for_the_log_ends_the_container(workspace: Path, engine: Engine) -> None:
    made = environment()
    with pytest.raises(StorageFull, match="/dev/full"):
        await made.execute(python(FOREVER), workspace, print, Path("/dev/full"))
    await made.close()
    assert_silent(workspace)
    assert ours(engine, workspace) == []


async def test_cancelling_twice_still_removes_the_container_first(workspace: Path, engine: Engine) -> None:
    beating = asyncio.Event()
    made = environment()
    task = asyncio.ensure_future(
        made.execute(python(FOREVER), workspace, lambda _: beating.set(), workspace.parent / "log")
    )
    await asyncio.wait_for(beating.wait(), 60)
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ours(engine, workspace) == []
    assert_silent(workspace, within=0.5)
    await made.close()


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1, 0.3, 0.6])
async def test_cancelling_while_it_starts_leaves_nothing(workspace: Path, engine: Engine, delay: float) -> None:
    made = environment()
    await made.prepare("full")
    task = asyncio.ensure_future(
        made.execute(python("import time; time.sleep(60)"), workspace, print, workspace.parent / "log")
    )
    await asyncio.sleep(delay)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ours(engine, workspace) == []
    assert owners(workspace) == {os.getuid()}
    await made.close()


DRIVER = """
import asyncio, sys
from pathlib import Path
from ftagent.core.types import Stage
from support.docker_images import environment
folder, script = sys.argv[1:]
stage = Stage("test", "debug", ("python", "-c", script))
line = lambda text: print(text, flush=True)
asyncio.run(environment().execute(stage, Path(folder), line, Path(folder + ".log")))
"""


@pytest.fixture
def abandoned(workspace: Path, engine: Engine) -> str:
    """The container of a driver that was killed."""
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", DRIVER, workspace, FOREVER]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"beats\n"
        (name,) = ours(engine, workspace)
        driver.send_signal(signal.SIGKILL)
    return name


def doctor(folder: Path, *words: str) -> dict[str, Any]:
    """What `ftagent doctor` says of containers of dead runs."""
    command = [sys.executable, "-m", "ftagent", "doctor", "--no-models", "--json", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    found = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "containers of dead runs"]
    return dict(found[0])


async def test_a_container_ends_with_us_and_is_reaped_alone(abandoned: str, workspace: Path, engine: Engine) -> None:
    assert_silent(workspace)
    foreign = {"Image": PYTHON, "Cmd": ["sleep", "60"], "HostConfig": {"NetworkMode": "none"}}
    engine.client.create_container_from_config(foreign, f"unlabelled-{os.getpid()}")
    try:
        assert abandoned in ours(engine, workspace)
        told = doctor(workspace.parent)
        assert abandoned in told["detail"]
        assert not told["ok"]
        told = doctor(workspace.parent, "--fix")
        assert told["ok"]
        assert abandoned in told["detail"]
        assert ours(engine, workspace) == []
        names = [name for one in engine.client.containers(all=True) for name in one["Names"]]
        assert f"/unlabelled-{os.getpid()}" in names
    finally:
        engine.remove(f"unlabelled-{os.getpid()}")


async def test_the_next_run_removes_what_a_dead_one_left(abandoned: str, workspace: Path, engine: Engine) -> None:
    made = environment()
    await made.prepare("debug")
    await made.close()
    assert abandoned not in ours(engine)
    # What that run lent to its container is the user's again with the next command.
    done = await execute(environment(), workspace, "print()")
    assert done.end == "ok"
    assert owners(workspace) == {os.getuid()}
