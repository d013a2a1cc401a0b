"""Environment `docker` on a real Docker Engine: the conformance suite, and how containers and images are made.

Rows 8-20, 27, 29, 31.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ftagent.environments.conformance as suite
from ftagent.core.errors import EnvironmentUnavailable, RequestError
from ftagent.core.types import Execution, Mount, Resources, Stage
from ftagent.environments.choosing import choose
from ftagent.environments.docker import DockerEnvironment, DockerOptions
from ftagent.environments.docker_engine import Engine, address
from ftagent.environments.docker_image import ImageSource, image_source
from ftagent.environments.docker_leftovers import OURS
from ftagent.environments.stages import MAX_ARGUMENT_BYTES
from ftagent.llm.broker_socket import Door
from ftagent.settings import load
from support.docker_images import PYTHON, environment, host_packages, need_image, owners

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]


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


def python(script: str, **stage: Any) -> Stage:
    return Stage("test", "debug", ("python", "-c", script), **{"time_limit": 60.0, **stage})


async def run(
    workspace: Path, stage: Stage, made: DockerEnvironment | None = None, heard: Callable[[str], None] = print
) -> tuple[Execution, list[str]]:
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        heard(line)

    made = made or environment()
    try:
        return await made.execute(stage, workspace, on_line, workspace.parent / "log"), lines
    finally:
        await made.close()


@pytest.mark.parametrize("check", suite.all_checks(), ids=lambda check: check.name)
async def test_conformance(check: suite.Check, tmp_path: Path) -> None:
    result = await suite.run_check(check, environment, tmp_path / "check")
    assert result.status == "pass", result.reason


async def test_the_container_that_the_engine_made_is_confined(workspace: Path, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    seen: dict[str, Any] = {}

    def look(_: str) -> None:
        (found,) = [one for one in engine.containers(f"{OURS}=1") if str(workspace) in json.dumps(one["Mounts"])]
        seen.update(engine.client.inspect_container(found["Id"]))

    os.environ["FTAGENT_CANARY_API_KEY"] = "canary-key"
    try:
        script = """
print('up', flush=True)
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
print(*(status[name].strip() for name in ('CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp')))
"""
        stage = python(
            script, mounts=(Mount("data", str(tmp_path / "data")),), resources=Resources(memory_mb=200, cpus=1)
        )
        done, lines = await run(workspace, stage, heard=look)
    finally:
        del os.environ["FTAGENT_CANARY_API_KEY"]
    assert done.end == "ok", done
    assert lines == ["up", "0000000000000000 0000000000000000 1 2"]
    host = seen["HostConfig"]
    assert seen["Config"]["User"] not in ("", "0", "0:0", "root")
    assert (host["Privileged"], host["CapDrop"], host["ReadonlyRootfs"]) == (False, ["ALL"], True)
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["NetworkMode"], host["PidMode"], host["IpcMode"]) == ("none", "", "private")
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (200 << 20, 200 << 20, 10**9)
    assert host["PidsLimit"] == 4097
    assert "docker.sock" not in json.dumps(seen["Mounts"])
    assert [mount["Destination"] for mount in seen["Mounts"] if mount["RW"]] == [str(workspace)]
    assert "canary-key" not in json.dumps(seen)
    assert {name for name in seen["Config"]["Labels"] if name.startswith("ftagent")} >= {OURS, "ftagent.stage"}


async def test_files_stay_the_users(workspace: Path) -> None:
    (workspace / "given").write_text("a")
    (workspace / "link").symlink_to("/etc/passwd")
    before = os.lstat("/etc/passwd")
    done, lines = await run(
        workspace, python("import os; open('given', 'a').write('b'); os.makedirs('a/b'); print(os.getuid())")
    )
    assert done.end == "ok", done
    assert (workspace / "given").read_text() == "ab"
    assert int(lines[0]) == (os.getuid() or 65534)
    assert owners(workspace) == {os.getuid()}
    assert os.lstat("/etc/passwd").st_uid == before.st_uid


async def test_a_workspace_is_lent_while_one_of_several_commands_uses_it(workspace: Path) -> None:
    made = environment()
    short = made.execute(python("open('short', 'w')"), workspace, print, workspace.parent / "short.log")
    script = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)\nopen('long', 'w')"

    async def then() -> None:
        await short
        (workspace / "go").touch()

    long = made.execute(python(script), workspace, print, workspace.parent / "long.log")
    done, _ = await asyncio.gather(long, then())
    await made.close()
    assert done.end == "ok", done
    assert owners(workspace) == {os.getuid()}


async def test_the_toolkit_is_there_and_nothing_else_of_ours(workspace: Path) -> None:
    script = """
import ftagent.toolkit, importlib.util, os
print(ftagent.toolkit.__file__, importlib.util.find_spec("ftagent.core"))
print(sorted(os.listdir("/opt/ftagent/lib/ftagent")))
try:
    open(ftagent.toolkit.__file__, "a")
    print("written")
except OSError:
    pass
"""
    done, lines = await run(workspace, python(script))
    assert done.end == "ok", done
    assert lines == ["/opt/ftagent/lib/ftagent/toolkit/__init__.py None", "['__init__.py', 'toolkit']"]


async def test_packages_of_the_host_are_lent_to_an_image_without(workspace: Path) -> None:
    stage = python("import msgspec, numpy; print(numpy.arange(3).sum())")
    done, lines = await run(workspace, stage)
    assert (done.end, done.exit_code) == ("failed", 1)
    done, lines = await run(workspace, stage, environment(packages=(host_packages(),)))
    assert (done.end, lines) == ("ok", ["3"]), done
    assert {"numpy", "msgspec", "ftagent", "json"} <= await modules()


async def modules() -> frozenset[str]:
    made = environment(packages=(host_packages(),))
    try:
        return await made.modules()
    finally:
        await made.close()


async def test_a_socket_in_the_workspace_works_without_network(workspace: Path) -> None:
    door = Door(workspace)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(door._listener)
        connection.setblocking(False)
        await loop.sock_sendall(connection, b"reply to " + await loop.sock_recv(connection, 100))
        connection.close()

    script = """
import socket
with socket.socket(socket.AF_UNIX) as s:
    s.connect(".llm.sock")
    s.sendall(b"a question")
    print(s.recv(100).decode())
"""
    serving = asyncio.create_task(serve())
    try:
        done, lines = await run(workspace, python(script))
        await serving
    finally:
        serving.cancel()
        door.close()
    assert (done.end, lines) == ("ok", ["reply to a question"]), done
    assert not (workspace / ".llm.sock").exists()


async def test_the_network_is_there_where_it_is_declared(workspace: Path, engine: Engine) -> None:
    (bridge,) = engine.client.inspect_network("bridge")["IPAM"]["Config"]
    # An engine that has never been restarted does not tell it: the first address of the network.
    gateway = bridge.get("Gateway") or str(next(ipaddress.ip_network(bridge["Subnet"]).hosts()))
    with socket.create_server((gateway, 0)) as server:
        script = f"import socket; socket.create_connection({server.getsockname()!r}, 5); print('connected')"
        done, lines = await run(workspace, python(script, network=True))
        assert (done.end, lines) == ("ok", ["connected"]), done
        done, lines = await run(workspace, python(script))
        assert (done.end, lines) == ("failed", ["Traceback (most recent call last):", *lines[1:]])


async def test_gpus_that_the_engine_cannot_give_are_one_line(workspace: Path, engine: Engine) -> None:
    if "nvidia" in engine.client.info()["Runtimes"]:
        pytest.skip("this engine has NVIDIA's runtime")
    with pytest.raises(EnvironmentUnavailable, match="NVIDIA Container Toolkit") as raised:
        await run(workspace, python("print()", resources=Resources(gpus=("0",))))
    assert "\n" not in str(raised.value)
    left = [one for one in engine.containers(f"{OURS}=1") if str(workspace) in json.dumps(one["Mounts"])]
    assert left == []


HOSTILE = {
    "kills process 1": "import os; os.kill(1, 9); os.kill(1, 15); print('still here')",
    "reads process 1": """
import os
for name in ("fd/2", "mem", "environ"):
    try:
        open(f"/proc/1/{name}", "r+b")
        print("opened", name)
    except OSError:
        pass
print('still here')
""",
    "forges a report": """
import os, sys
for stream in (1, 2):
    os.write(stream, b'{"exit-code": 5, "oom-kills": 3, "peak": 1, "stopped": "time", "full": ""}\\n')
for name in ("/dev/stderr", "/proc/self/fd/2"):
    try:
        open(name, "wb", 0).write(b'{"error": "forged"}\\n')
    except OSError:
        pass
print('still here')
""",
    "closes its streams": "import os; os.write(1, b'still here\\n'); os.closerange(0, 50)",
    "raises its own score": "open('/proc/self/oom_score_adj', 'w').write('1000'); print('still here')",
}


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
async def test_a_command_cannot_speak_for_process_1(workspace: Path, script: str) -> None:
    done, lines = await run(workspace, python(script))
    assert (done.end, done.exit_code) == ("ok", 0), done
    assert "still here" in lines
    assert not [line for line in lines if line.startswith("opened")]


async def test_process_1_does_nothing_where_it_is_not_process_1(workspace: Path) -> None:
    """It kills all that it can see: it must be sure that this is a container of its own."""
    script = """
import subprocess, sys
done = subprocess.run([sys.executable, "/opt/ftagent/container_init.py", "5", ".", "--", "true"],
                      stdin=subprocess.DEVNULL, capture_output=True, text=True)
print(done.returncode, done.stderr.strip())
"""
    done, lines = await run(workspace, python(script))
    assert done.end == "ok", done
    assert lines == ["2 container_init.py: works as process 1 of a container only"]


async def test_a_full_temporary_folder_is_told(workspace: Path) -> None:
    script = "open('/tmp/big', 'wb').write(bytes(50 << 20)); print('written')"
    done, lines = await run(workspace, python(script, resources=Resources(memory_mb=2000)))
    assert (done.end, lines) == ("ok", ["written"])
    script = "open('/dev/shm/x', 'wb').truncate(1); open('/tmp/big', 'wb').write(bytes(60 << 20))"
    done, _ = await run(workspace, python(script, resources=Resources(memory_mb=50)))
    # Either the folder or the memory that it lies in is used up first.
    assert done.end == "out_of_memory" or "/tmp had no room left" in done.detail, done


async def test_a_long_command_and_odd_variables_reach_it(workspace: Path) -> None:
    argument = "x" * (MAX_ARGUMENT_BYTES - 100)
    variables = {"ODD": "a=b\n\"'$HOME é", "EMPTY": ""}
    script = "import os, sys; print(len(sys.argv[1]), repr(os.environ['ODD']), repr(os.environ['EMPTY']))"
    stage = Stage("test", "debug", ("python", "-c", script, argument), time_limit=60.0, variables=variables)
    done, lines = await run(workspace, stage)
    assert done.end == "ok", done
    assert lines == [f"{len(argument)} {variables['ODD']!r} ''"]


async def test_an_input_that_root_alone_can_read_is_not_blamed_on_the_code(workspace: Path, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("the container's user is the host's")
    secret = tmp_path / "data"
    secret.mkdir()
    (secret / "rows").write_text("x")
    (secret / "rows").chmod(0o600)
    with pytest.raises(EnvironmentUnavailable, match=r"rows can be read by root alone.*chmod -R o\+rX"):
        await run(workspace, python("print()", mounts=(Mount("data", str(secret)),)))


async def test_a_missing_image_is_named_with_what_makes_it(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnavailable, match="image ftagent-none:1 is not there; `ftagent env build docker`"):
        await run(workspace, python("print()"), environment(source=ImageSource("ftagent-none:1")))


async def test_an_image_without_python_is_told(workspace: Path) -> None:
    with pytest.raises(EnvironmentUnavailable, match="needs Python 3"):
        await run(workspace, python("print()"), environment(python="python9"))


@pytest.fixture
def context(tmp_path: Path, engine: Engine) -> Iterator[Path]:
    """A user's folder with a Dockerfile; its images are removed afterwards."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {PYTHON}\nCOPY greeting /opt/greeting\nRUN echo one && echo two\n")
    (folder / "greeting").write_text(f"hello from {tmp_path}")
    name = image_source("tabular", folder=folder).name
    yield folder
    for image in engine.client.images(filters={"reference": "ftagent-tabular"}):
        if name in (image["RepoTags"] or []):
            engine.client.remove_image(name, force=True)


async def test_an_image_is_built_from_a_folder_once(context: Path, workspace: Path, tmp_path: Path) -> None:
    source, told = image_source("tabular", folder=context), list[str]()
    first = environment(source=source)
    assert not first.ready()
    assert await first.build(told.append)
    assert any(line.startswith("Step 2/3 : COPY") for line in told)
    assert {"one", "two"} <= set(told)
    assert told[-1] == f"image {source.name} is ready"
    told.clear()
    assert not await first.build(told.append)
    assert told == []
    done, lines = await run(workspace, python("print(open('/opt/greeting').read())"), environment(source=source))
    assert (done.end, lines) == ("ok", [f"hello from {tmp_path}"])
    one = await named(environment(source=source))
    assert one == await named(environment(source=source))
    assert one != await named(environment())


async def named(made: DockerEnvironment) -> str:
    try:
        return await made.identity()
    finally:
        await made.close()


async def test_an_image_is_made_on_first_use_where_that_is_allowed(context: Path, workspace: Path) -> None:
    told: list[str] = []
    source = image_source("tabular", folder=context)
    made = DockerEnvironment(DockerOptions(source, make_image=True), told.append)
    done, _ = await run(workspace, python("print()"), made)
    assert done.end == "ok"
    assert told[0].startswith(f"building image {source.name}")


async def test_a_build_that_fails_shows_why(context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {PYTHON}\nRUN echo looking && ls /no-such-folder\n")
    made = environment(source=image_source("tabular", folder=context))
    told: list[str] = []
    with pytest.raises(EnvironmentUnavailable, match=r"cannot be built from .*returned a non-zero code: 2") as raised:
        await made.build(told.append)
    assert "no-such-folder" in str(raised.value)
    assert "\n" not in str(raised.value)
    (context / "Dockerfile").unlink()
    with pytest.raises(RequestError, match="no Dockerfile here"):
        image_source("tabular", folder=context)


def test_auto_takes_docker_only_where_the_image_is_there(tmp_path: Path) -> None:
    there, missing = (load(None, {"FT_DOCKER_IMAGE": name}, tmp_path) for name in (PYTHON, "ftagent-none:1"))
    choice = choose("auto", there, "llm", print)
    assert (choice.environment.name, choice.notes) == ("docker", ())
    choice = choose("auto", missing, "llm", print)
    assert choice.environment.name == "local"
    (told,) = choice.notes
    assert "no image ftagent-none:1" in told
    assert "`ftagent env build docker` makes the image" in told
    asked = choose("docker", missing, "llm", print).environment
    assert isinstance(asked, DockerEnvironment)
    assert asked.options.make_image


def ftagent(*words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ftagent", *words]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=120
    )


def test_the_command_line_lists_builds_and_checks(context: Path, tmp_path: Path) -> None:
    wanted = {"DS_DOCKERFILE_FOLDER_PATH": str(context)}
    tables = ("--scenario", "tabular")

    def state() -> str:
        listed = json.loads(ftagent("env", "list", *tables, "--json", folder=tmp_path, **wanted).stdout)
        return str(next(place["state"] for place in listed["environments"] if place["name"] == "docker"))

    assert state() == "not ready"
    refused = ftagent("env", "check", "docker", *tables, folder=tmp_path, **wanted)
    assert refused.returncode == 2
    assert "`ftagent env build docker` makes it" in refused.stderr
    built = ftagent("env", "build", "docker", *tables, folder=tmp_path, **wanted)
    assert built.returncode == 0, built.stderr
    assert "Step 2/3 : COPY" in built.stderr
    assert built.stdout.endswith(" is ready\n")
    assert state() == "ready"
    checked = ftagent("env", "check", "docker", *tables, "--only", "exit_codes", folder=tmp_path, **wanted)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    again = ftagent("env", "build", "docker", *tables, folder=tmp_path, **wanted)
    assert again.stdout.endswith(" was there already\n")


def test_nobody_is_left_behind(engine: Engine) -> None:
    """Runs last in this file: none of its containers is there any more."""
    mine = [
        one for one in engine.containers(f"{OURS}=1") if one["Labels"]["ftagent.owner"].startswith(f"{os.getpid()}.")
    ]
    assert mine == []
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"ftagent-{os.getpid()}-" not in running
