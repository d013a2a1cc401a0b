"""Faults from outside: killed processes, a full disk, a listener that raises, a sandbox that breaks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftagent.core.errors import EnvironmentUnavailable, StorageFull
from ftagent.core.types import Execution, Mount, Resources, Stage
from ftagent.environments import limits, proctree, sandbox
from ftagent.environments.conformance_checks import BEAT
from ftagent.environments.local import LocalEnvironment, LocalOptions

WAYS = {
    "sandboxed": LocalOptions(),
    "sandboxed-polling": LocalOptions(control_groups=False),
    "plain": LocalOptions(sandbox="none"),
    "plain-polling": LocalOptions(sandbox="none", control_groups=False),
}
FOREVER = BEAT + "print(os.getppid())\ntime.sleep(600)"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name.startswith("sandboxed") and (why := sandbox.probe()):
        pytest.skip(why)
    return name


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def python(script: str, **stage: object) -> Stage:
    return Stage("test", "debug", ("python", "-c", script), **{"time_limit": 30.0, **stage})  # type: ignore[arg-type]


def assert_silent(workspace: Path, within: float = 3.0) -> None:
    """No process writes to `beat` any more."""
    beat, deadline = workspace / "beat", time.monotonic() + within
    while True:
        size = beat.stat().st_size
        time.sleep(0.2)
        if beat.stat().st_size == size:
            return
        assert time.monotonic() < deadline, "a process of the command still lives"


def entries(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def open_descriptors() -> int:
    return len(entries(Path("/proc/self/fd")))


def groups() -> set[Path]:
    folders = {place.folder for place in limits.discover().values()}
    return {path for folder in folders for path in folder.glob(f"ftagent-{os.getpid()}-*")}


DRIVER = """
import asyncio, sys
from pathlib import Path
from ftagent.core.types import Stage
from ftagent.environments.local import LocalEnvironment, LocalOptions
folder, kind, groups, script = sys.argv[1:]
environment = LocalEnvironment(LocalOptions(sandbox=kind, control_groups=groups == "True"))
stage = Stage("test", "debug", ("python", "-c", script))
asyncio.run(environment.execute(stage, Path(folder), lambda line: print(line, flush=True), Path(folder + ".log")))
"""


def test_everything_dies_with_us(way: str, workspace: Path) -> None:
    options = WAYS[way]
    arguments = [str(workspace), options.sandbox, str(options.control_groups), FOREVER]
    with subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline().strip().isdigit()
        assert (workspace / "beat").stat().st_size > 0
        driver.send_signal(signal.SIGKILL)
    assert_silent(workspace)


async def test_a_killed_watcher_is_lost_and_leaves_nothing(way: str, workspace: Path, tmp_path: Path) -> None:
    def kill_watcher(_: str) -> None:
        proctree.kill(proctree.children(os.getpid()))

    environment = LocalEnvironment(WAYS[way])
    done = await environment.execute(python(FOREVER), workspace, kill_watcher, tmp_path / "log")
    assert (done.end, done.exit_code) == ("lost", None)
    assert_silent(workspace)


async def test_a_listener_that_raises_ends_the_command(way: str, workspace: Path, tmp_path: Path) -> None:
    def listener(_: str) -> None:
        raise ZeroDivisionError("from the listener")

    with pytest.raises(ZeroDivisionError, match="from the listener"):
        await LocalEnvironment(WAYS[way]).execute(python(FOREVER), workspace, listener, tmp_path / "log")
    assert_silent(workspace)


async def test_a_full_disk_for_the_log_ends_the_command(way: str, workspace: Path) -> None:
    with pytest.raises(StorageFull, match="/dev/full"):
        await LocalEnvironment(WAYS[way]).execute(python(FOREVER), workspace, print, Path("/dev/full"))
    assert_silent(workspace)


async def test_nothing_is_left_behind(way: str, workspace: Path, tmp_path: Path) -> None:
    environment = LocalEnvironment(WAYS[way])
    descriptors, children = open_descriptors(), proctree.children(os.getpid())
    for stage in (python("print()"), python("import time; time.sleep(60)", time_limit=0.2), python("1/0")):
        await environment.execute(stage, workspace, print, tmp_path / "log")
    task = asyncio.ensure_future(environment.execute(python(FOREVER), workspace, print, tmp_path / "log"))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert open_descriptors() == descriptors
    assert proctree.children(os.getpid()) == children
    assert groups() == set()


async def test_our_memory_is_bounded_under_endless_output(workspace: Path, tmp_path: Path) -> None:
    def resident() -> int:
        return proctree.resident_bytes([os.getpid()])

    count = 0

    def listener(_: str) -> None:
        nonlocal count
        count += 1

    environment = LocalEnvironment(LocalOptions(output_cap_bytes=1 << 20))
    before = resident()
    stage = Stage("yes", "debug", ("yes", "x" * 200), time_limit=1.5)
    done = await environment.execute(stage, workspace, listener, tmp_path / "log")
    assert done.end == "timed_out"
    assert resident() - before < 20 << 20
    size = (tmp_path / "log").stat().st_size
    assert (1 << 20) <= size <= (1 << 20) + 100
    # 1 MiB holds 5,217 of these lines; after it a listener gets a hundred a second.
    assert 5_000 < count < 6_000


def test_killing_all_that_one_can_see_stays_inside(workspace: Path, tmp_path: Path) -> None:
    if why := sandbox.probe():
        pytest.skip(why)
    environment = LocalEnvironment(LocalOptions(sandbox="bubblewrap"))
    stage = python(BEAT + "os.kill(-1, 9)")
    with subprocess.Popen(["sleep", "60"]) as bystander:
        asyncio.run(environment.execute(stage, workspace, print, tmp_path / "log"))
        assert bystander.poll() is None
        bystander.kill()
    assert_silent(workspace)


async def execute(workspace: Path, stage: Stage, options: LocalOptions | None = None) -> tuple[Execution, list[str]]:
    lines: list[str] = []
    environment = LocalEnvironment(options)
    return await environment.execute(stage, workspace, lines.append, workspace.parent / "log"), lines


async def test_variables_of_a_stage_do_not_act_outside_of_the_sandbox(workspace: Path, tmp_path: Path) -> None:
    """The dynamic loader obeys LD_ variables in whatever it loads; bubblewrap itself must not see them."""
    if why := sandbox.probe():
        pytest.skip(why)
    traces = tmp_path / "outside"
    traces.mkdir()
    variables = {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": str(traces / "trace")}
    done, lines = await execute(workspace, python("import os; print(os.environ['LD_DEBUG'])", variables=variables))
    assert done.end == "ok"
    assert "files" in lines
    assert entries(traces) == []


async def test_gpus_and_threads_reach_the_command(way: str, workspace: Path) -> None:
    script = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'])"
    resources = Resources(cpus=2, gpus=("3", "1"))
    _, lines = await execute(workspace, python(script, resources=resources), WAYS[way])
    assert lines == ["3,1 2"]
    _, lines = await execute(workspace, python("import os; print(repr(os.environ['CUDA_VISIBLE_DEVICES']))"), WAYS[way])
    assert lines == ["''"]


async def test_the_package_can_be_imported_and_what_lies_beside_it_cannot_be_seen(workspace: Path) -> None:
    if why := sandbox.probe():
        pytest.skip(why)
    root = sandbox.package_folder().parent
    script = f"import os, ftagent.toolkit; print(ftagent.toolkit.__file__); print(sorted(os.listdir({str(root)!r})))"
    done, lines = await execute(workspace, python(script))
    assert done.end == "ok", done
    assert Path(lines[0]) == root / "ftagent" / "toolkit" / "__init__.py"
    if root.name == "src":
        assert lines[1] == "['ftagent']"


async def test_a_hub_snapshot_is_readable_and_no_planted_link_is(workspace: Path, tmp_path: Path) -> None:
    if why := sandbox.probe():
        pytest.skip(why)
    cache = tmp_path / "hub" / "models--a--b"
    snapshot, blobs = cache / "snapshots" / "main", cache / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "1234").write_text("weights")
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    (tmp_path / "answers").write_text("secret")
    (snapshot / "planted").symlink_to(tmp_path / "answers")
    script = """
import os, pathlib
folder = pathlib.Path(os.environ["FTAGENT_INPUT_MODEL"])
print((folder / "model.safetensors").read_text())
print((folder / "planted").exists())
"""
    done, lines = await execute(workspace, python(script, mounts=(Mount("model", str(snapshot)),)))
    assert (done.end, lines) == ("ok", ["weights", "False"]), done


async def test_network_is_there_where_it_is_declared(way: str, workspace: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5); print('connected')"
        done, lines = await execute(workspace, python(script, network=True), WAYS[way])
    assert (done.end, lines) == ("ok", ["connected"])


async def test_a_sandbox_that_cannot_work_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bin" / "bwrap"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'bwrap: no permission for a new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:/usr/bin:/bin")
    with pytest.raises(EnvironmentUnavailable, match="no permission for a new namespace"):
        await LocalEnvironment(LocalOptions(sandbox="bubblewrap")).prepare("full")
    fallback = LocalEnvironment()
    await fallback.prepare("full")
    assert not fallback.sealed
    assert "no security boundary" in fallback.describe()
    assert "\n" not in fallback.describe()


async def test_a_sandbox_that_breaks_later_is_not_blamed_on_the_code(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why := sandbox.probe():
        pytest.skip(why)
    environment = LocalEnvironment(LocalOptions(sandbox="bubblewrap"))
    await environment.prepare("debug")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentUnavailable, match="bwrap"):
        await environment.execute(python("print()"), workspace, print, tmp_path / "log")
    monkeypatch.undo()
    environment = LocalEnvironment(LocalOptions(sandbox="bubblewrap", readable=(tmp_path / "gone",)))
    with pytest.raises(EnvironmentUnavailable, match="gone"):
        await environment.execute(python("print()"), workspace, print, tmp_path / "log")


async def test_a_workspace_that_vanished_is_told(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnavailable, match="does not exist"):
        await LocalEnvironment().execute(python("print()"), tmp_path / "gone", print, tmp_path / "log")


@pytest.mark.parametrize("command", [(), ("python", "-c", "print('a\0b')")])
async def test_an_impossible_command_is_the_codes_failure(workspace: Path, command: tuple[str, ...]) -> None:
    done, _ = await execute(workspace, Stage("test", "debug", command))
    assert done.end == "failed"
    assert done.detail


async def test_a_too_long_command_is_the_codes_failure(way: str, workspace: Path) -> None:
    done, _ = await execute(workspace, python("#" + "x" * 200_000), WAYS[way])
    assert done.end == "failed"
