"""Pure parts of environment `docker`: what containers are made from, what is read from them, whose they are."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftagent.core.errors import EnvironmentUnavailable, RequestError
from ftagent.core.types import Mount, Resources, Stage
from ftagent.environments import sandbox
from ftagent.environments.docker_config import (
    EngineFacts,
    Identity,
    Image,
    container_config,
    gpu_variables,
    identity_of,
)
from ftagent.environments.docker_engine import address, why_unreachable
from ftagent.environments.docker_image import VARIANTS, contexts_folder, digest, image_source
from ftagent.environments.docker_leftovers import ATTEMPT, BOOT, LOOP, NAMESPACE, OWNER, RUN, is_dead, labels
from ftagent.environments.docker_stream import Frames, Report, read_report
from ftagent.environments.ownership import unreadable

ROOT = Path(__file__).parents[2]
IMAGE = Image("ftagent-llm:0123", "sha256:abcd")
PACKAGE = str(sandbox.package_folder())
STAGE = Stage("train", "full", ("python", "-P", "train.py"), time_limit=90.0)


def config(stage: Stage = STAGE, facts: EngineFacts | None = None, **options: Any) -> dict[str, Any]:
    who = options.pop("who", Identity(1000, 1001, (44,)))
    return container_config(
        stage, Path("/runs/w"), IMAGE, who, facts or EngineFacts("28", cpus=4), {"A": "b"}, {"ftagent": "1"}, **options
    )


def bind(source: str, target: str, read_only: bool = True) -> dict[str, Any]:
    options = {"Propagation": "rprivate", "NonRecursive": read_only}
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only, "BindOptions": options}


def test_the_whole_request_for_a_plain_stage() -> None:
    assert config() == {
        "Image": "sha256:abcd",
        "User": "1000:1001",
        "Hostname": "ftagent",
        "WorkingDir": "/",
        "Entrypoint": ["python3", "-I", "-S", "/opt/ftagent/container_init.py", "90", "/runs/w", "--"],
        "Cmd": ["python", "-P", "train.py"],
        "Env": ["A=b"],
        "Labels": {"ftagent": "1"},
        "Healthcheck": {"Test": ["NONE"]},
        "Tty": False,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "Privileged": False,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "NetworkMode": "none",
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "UsernsMode": "",
            "GroupAdd": ["44"],
            "Init": False,
            "LogConfig": {"Type": "none", "Config": {}},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "AutoRemove": False,
            "Memory": 0,
            "MemorySwap": 0,
            "PidsLimit": 4097,
            "NanoCpus": 0,
            "ShmSize": 8192 << 20,
            "Tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=8192m"},
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            "Mounts": [
                bind("/runs/w", "/runs/w", read_only=False),
                bind(f"{PACKAGE}/environments/container_init.py", "/opt/ftagent/container_init.py"),
                bind(f"{PACKAGE}/__init__.py", "/opt/ftagent/lib/ftagent/__init__.py"),
                bind(f"{PACKAGE}/toolkit", "/opt/ftagent/lib/ftagent/toolkit"),
            ],
            "DeviceRequests": [],
        },
    }


@pytest.mark.parametrize(
    ("gpus", "requests", "visible"),
    [
        ((), [], {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}),
        (
            ("3",),
            [{"Driver": "", "Count": 0, "DeviceIDs": ["3"], "Capabilities": [["gpu"]], "Options": {}}],
            {"CUDA_VISIBLE_DEVICES": "0"},
        ),
        (
            ("1", "3"),
            [{"Driver": "", "Count": 0, "DeviceIDs": ["1", "3"], "Capabilities": [["gpu"]], "Options": {}}],
            {"CUDA_VISIBLE_DEVICES": "0,1"},
        ),
    ],
    ids=["none", "one", "two"],
)
def test_gpus(gpus: tuple[str, ...], requests: list[dict[str, Any]], visible: dict[str, str]) -> None:
    stage = Stage("train", "full", ("python",), resources=Resources(gpus=gpus))
    made, plain = config(stage), config(Stage("train", "full", ("python",)))
    assert made["HostConfig"].pop("DeviceRequests") == requests
    plain["HostConfig"].pop("DeviceRequests")
    assert made == plain
    assert gpu_variables(gpus) == visible


def test_limits() -> None:
    resources = Resources(cpus=2, memory_mb=500, processes=40)
    host = config(Stage("s", "debug", ("x",), resources=resources, network=True))["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["ShmSize"]) == (500 << 20,) * 3
    assert (host["PidsLimit"], host["NanoCpus"], host["NetworkMode"]) == (41, 2 * 10**9, "bridge")
    assert host["Tmpfs"] == {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=500m"}
    unlimited = Resources(cpus=64, processes=0)
    host = config(Stage("s", "debug", ("x",), resources=unlimited))["HostConfig"]
    # An engine refuses more processors than there are.
    assert (host["PidsLimit"], host["NanoCpus"]) == (-1, 4 * 10**9)


def test_what_kind_of_engine_it_is_changes_no_confinement() -> None:
    host = config(facts=EngineFacts("28", cpus=4, remaps_users=True, selinux=True))["HostConfig"]
    assert host["UsernsMode"] == "host"
    assert host["SecurityOpt"] == ["no-new-privileges", "label=disable"]
    plain = config()["HostConfig"]
    same = ("Privileged", "CapDrop", "ReadonlyRootfs", "NetworkMode", "IpcMode", "Mounts")
    assert {name: host[name] for name in same} == {name: plain[name] for name in same}


def test_inputs_and_packages_are_read_only(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "main", tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    stage = Stage("s", "full", ("x",), mounts=(Mount("MODEL", str(snapshot)), Mount("AGAIN", str(snapshot))))
    mounts = config(stage, packages=(Path("/host/packages"),))["HostConfig"]["Mounts"]
    assert mounts[4:] == [
        bind("/host/packages", "/opt/ftagent/packages/0"),
        bind(str(snapshot), str(snapshot)),
        bind(str(blobs), str(blobs)),
    ]
    assert [mount["Target"] for mount in mounts if not mount["ReadOnly"]] == ["/runs/w"]


@pytest.mark.parametrize(
    ("user", "facts", "who"),
    [
        ((1000, 1000, [1000, 27, 27]), EngineFacts(), Identity(1000, 1000, (27,))),
        ((1000, 0, [0]), EngineFacts(), Identity(1000, 0)),
        ((0, 0, [0, 27]), EngineFacts(), Identity(65534, 65534)),
        ((1000, 1000, [27]), EngineFacts(rootless=True), Identity(0, 0)),
    ],
    ids=["user", "user-in-group-root", "root", "rootless"],
)
def test_who_a_command_is(user: tuple[int, int, list[int]], facts: EngineFacts, who: Identity) -> None:
    assert identity_of(*user, facts) == who


def framed(*pieces: tuple[int, bytes]) -> bytes:
    return b"".join(bytes([kind, 0, 0, 0]) + len(text).to_bytes(4, "big") + text for kind, text in pieces)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 11, 1000])
def test_frames_are_read_however_they_arrive(size: int) -> None:
    stream = framed((1, b"first\n"), (2, b'{"exit'), (1, b""), (1, b"second"), (2, b'-code": 3}\n'), (1, b"\x01\0\0\0"))
    output: list[bytes] = []
    frames = Frames(output.append)
    for start in range(0, len(stream), size):
        frames.feed(stream[start : start + size])
    assert b"".join(output) == b"first\nsecond\x01\0\0\0"
    assert bytes(frames.said) == b'{"exit-code": 3}\n'


def test_words_of_process_1_are_bounded() -> None:
    frames = Frames(lambda _: None)
    for _ in range(100):
        frames.feed(framed((2, b"x" * 10_000)))
    assert len(frames.said) == 64 * 1024


def test_reports() -> None:
    said = b'{"exit-code": -9, "oom-kills": 1, "peak": 1048576, "stopped": "", "full": "/tmp /dev/shm"}\n'
    assert read_report(said) == Report(-9, "", 1, 1048576, ("/tmp", "/dev/shm"))
    said = b'{"exit-code": null, "oom-kills": null, "peak": 5, "stopped": "time", "full": ""}\n'
    assert read_report(said) == Report(None, "time", None, 5, ())
    failed = read_report(b'{"error": "no such folder"}\n')
    assert failed is not None
    assert failed.error == "no such folder"
    assert read_report(b"") is None
    assert read_report(b"Traceback (most recent call last):\n  oops\n[1]\n") is None


def test_labels_tell_run_loop_and_attempt(tmp_path: Path) -> None:
    run = tmp_path / "log" / "run"
    found = labels(STAGE, run / "workspaces" / "Loop_3" / "debug_2")
    assert (found[RUN], found[LOOP], found[ATTEMPT]) == (str(run), "3", "2")
    found = labels(STAGE, run / "workspaces" / "baseline" / "full")
    assert (found[RUN], found[LOOP], ATTEMPT in found) == (str(run), "baseline", False)
    elsewhere = labels(STAGE, tmp_path)
    assert RUN not in elsewhere
    assert elsewhere["ftagent"] == "1"


def test_only_containers_of_the_dead_are_leftovers() -> None:
    alive = labels(STAGE, Path("/w"))
    assert not is_dead(alive, stopped=True)
    with subprocess.Popen(["sleep", "60"]) as gone:
        living = {**alive, OWNER: f"{gone.pid}.{began(gone.pid)}"}
        assert not is_dead(living, stopped=False)
        gone.kill()
        os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(living, stopped=False), "a process that nobody collects is dead as well"
    assert is_dead(living, stopped=False)
    # Its number is another process's by now.
    assert is_dead({**alive, OWNER: f"{os.getpid()}.1"}, stopped=False)
    # Nobody can tell from here.
    assert not is_dead({**living, NAMESPACE: "pid:[1]"}, stopped=True)
    assert not is_dead({**living, BOOT: "another"}, stopped=False)
    assert is_dead({**living, BOOT: "another"}, stopped=True)


@pytest.mark.parametrize(
    "texts",
    [{}, {"ftagent": "1"}, {OWNER: "1.1"}, {"ftagent": "2", OWNER: "999999999.1"}, {"ftagent": "1", OWNER: "x.1"}],
)
def test_what_does_not_say_whose_it_is_is_left_alone(texts: dict[str, str]) -> None:
    assert not is_dead(texts, stopped=True)


def began(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def test_the_engine_is_where_docker_would_look(tmp_path: Path) -> None:
    assert address({"DOCKER_HOST": "unix:///x"}, tmp_path) == "unix:///x"
    assert address({}, tmp_path) == "unix:///var/run/docker.sock"
    folder = tmp_path / ".docker"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"currentContext": "rootless"}))
    assert address({}, tmp_path) == "unix:///var/run/docker.sock"
    meta = folder / "contexts" / "meta" / hashlib.sha256(b"rootless").hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": "unix:///run/user/1/docker.sock"}}}))
    assert address({}, tmp_path) == "unix:///run/user/1/docker.sock"
    assert address({"DOCKER_CONTEXT": "other"}, tmp_path) == "unix:///var/run/docker.sock"


@pytest.mark.parametrize("where", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1", "ssh://user@host", "nonsense"])
def test_an_engine_that_is_not_there_is_one_line(where: str) -> None:
    why = why_unreachable(where)
    assert where in why
    assert "DOCKER_HOST" in why
    assert "\n" not in why


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    (folder / "sub").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "sub" / "file").write_text("a")
    return folder


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda folder: (folder / "sub" / "file").write_text("b"),
    "name": lambda folder: (folder / "sub" / "file").rename(folder / "sub" / "other"),
    "new file": lambda folder: (folder / "new").write_text(""),
    "executable": lambda folder: (folder / "sub" / "file").chmod(0o755),
    "link": lambda folder: (folder / "link").symlink_to("sub"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_image_is_named_after_all_that_is_in_its_context(context: Path, change: Callable[[Path], object]) -> None:
    before = digest(context)
    (context / "__pycache__").mkdir()
    (context / "__pycache__" / "x.pyc").write_text("")
    assert digest(context) == before
    change(context)
    assert digest(context) != before


def test_an_image_is_named_after_what_is_asked_for(context: Path) -> None:
    names = {digest(context), digest(context, "vllm"), digest(context, "", {"A": "1"}), digest(context, "", {"A": "2"})}
    assert len(names) == 4


def test_which_image_is_meant(context: Path, tmp_path: Path) -> None:
    named = image_source("llm", "mine:latest")
    assert (named.name, named.context) == ("mine:latest", None)
    folder = image_source("tabular", folder=context)
    assert re.fullmatch(r"ftagent-tabular:[0-9a-f]{12}", folder.name)
    assert folder.context == context
    small, cuda, vllm = (image_source("llm", variant=name) for name in VARIANTS["llm"])
    assert small.arguments["TORCH_INDEX"].endswith("/cpu")
    assert (cuda.target, vllm.target, cuda.arguments) == ("base", "vllm", {})
    assert len({small.name, cuda.name, vllm.name}) == 3
    with pytest.raises(RequestError, match="no Dockerfile here"):
        image_source("llm", folder=tmp_path / "nowhere")
    with pytest.raises(RequestError, match="the tabular image has cpu, cuda"):
        image_source("tabular", variant="vllm")
    with pytest.raises(RequestError, match="only ftagent's own images have variants"):
        image_source("llm", "mine", variant="cpu")


def test_pins_of_the_images_are_those_of_the_project() -> None:
    def pins(path: Path) -> dict[str, str]:
        lines = path.read_text().splitlines()
        return dict(line.split("==") for line in lines if line and not line.startswith("#"))

    ours = pins(ROOT / "constraints.txt")
    for stack in VARIANTS:
        folder = contexts_folder() / stack
        theirs = pins(folder / "requirements.txt")
        assert {name: version for name, version in theirs.items() if ours.get(name, version) != version} == {}
        torch = re.findall(r"torch==(\S+)", (folder / "Dockerfile").read_text())
        assert set(torch) == {ours["torch"]}
        assert "USER 65534" in (folder / "Dockerfile").read_text()


def test_an_input_that_root_alone_can_read_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "input"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "rows").write_text("x")
    (folder / "link").symlink_to("/root")
    for path in (folder, folder / "sub"):
        path.chmod(0o755)
    (folder / "sub" / "rows").chmod(0o644)
    assert unreadable(folder, 12345) is None
    (folder / "sub" / "rows").chmod(0o600)
    assert unreadable(folder, 12345) == folder / "sub" / "rows"
    assert unreadable(folder, os.getuid()) is None
    folder.chmod(0o700)
    assert unreadable(folder, 12345) == folder
    assert unreadable(tmp_path / "gone", 12345) is None


def test_environment_unavailable_is_what_a_missing_engine_raises() -> None:
    from ftagent.environments.docker import DockerEnvironment, DockerOptions

    made = DockerEnvironment(DockerOptions(image_source("llm", "x"), address="unix:///nowhere/docker.sock"))
    with pytest.raises(EnvironmentUnavailable, match=r"no Docker Engine answers at unix:///nowhere/docker\.sock"):
        made.ready()
