"""Pure parts of the environments: classification, control group places, variables, registry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ftagent.core.errors import RequestError
from ftagent.core.types import Mount, Resources, Stage
from ftagent.environments import registry
from ftagent.environments.ending import Stopped, classify
from ftagent.environments.limits import Hierarchy, candidates
from ftagent.environments.variables import command_variables

STAGE = Stage("train", "full", ("python",), time_limit=90.0, resources=Resources(memory_mb=500))


@pytest.mark.parametrize(
    ("stopped", "code", "oom_kills", "end", "exit_code", "number", "words"),
    [
        ("", 0, 0, "ok", 0, None, ""),
        ("", 2, 0, "failed", 2, None, "exit code 2"),
        ("", 137, 0, "killed", 137, 9, "SIGKILL"),
        ("", -9, 0, "killed", 137, 9, "SIGKILL"),
        ("", -15, 0, "killed", 143, 15, "SIGTERM"),
        ("", 139, 0, "failed", 139, 11, "SIGSEGV"),
        ("", -6, 0, "failed", 134, 6, "SIGABRT"),
        ("", 255, 0, "failed", 255, None, "exit code 255"),
        ("", None, 0, "lost", None, None, "unknown"),
        ("", 137, 1, "out_of_memory", 137, 9, "500 MB"),
        ("", 0, 1, "out_of_memory", 0, None, "child"),
        ("", 1, 2, "out_of_memory", 1, None, "child"),
        ("", None, 1, "out_of_memory", None, None, "500 MB"),
        ("memory", None, 0, "out_of_memory", None, 9, "500 MB"),
        ("time", None, 0, "timed_out", None, 9, "90 s"),
        ("time", None, 1, "timed_out", None, 9, "90 s"),
        ("processes", None, 0, "killed", None, 9, "4096"),
    ],
)
def test_why_a_command_ended(
    stopped: Stopped, code: int | None, oom_kills: int, end: str, exit_code: int | None, number: int | None, words: str
) -> None:
    ending = classify(STAGE, stopped, code, oom_kills)
    assert (ending.end, ending.exit_code, ending.signal) == (end, exit_code, number)
    assert words in ending.detail
    assert "\n" not in ending.detail


@pytest.mark.parametrize(("code", "end"), [(0, "ok"), (1, "out_of_memory"), (None, "out_of_memory")])
def test_a_stage_that_adapts_is_judged_by_its_own_end(code: int | None, end: str) -> None:
    assert classify(replace(STAGE, adapts=True), "", code, 2).end == end
    assert classify(replace(STAGE, adapts=True), "memory", code, 0).end == "out_of_memory"


VERSION_1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/ab /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
"""
VERSION_2 = "29 22 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def test_places_of_version_1() -> None:
    own = "9:name=systemd:/\n8:pids:/user\n4:memory:/docker/ab/x\n2:cpu,cpuacct:/\n"
    assert list(candidates(VERSION_1, own)) == [
        Hierarchy(Path("/sys/fs/cgroup/cpu,cpuacct"), 1, ("cpu",)),
        Hierarchy(Path("/sys/fs/cgroup/memory/x"), 1, ("memory",)),
        Hierarchy(Path("/sys/fs/cgroup/pids/user"), 1, ("pids",)),
    ]


def test_places_of_version_2_are_our_group_and_its_ancestors() -> None:
    own = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run.scope\n"
    places = list(candidates(VERSION_2, own))
    top = Path("/sys/fs/cgroup")
    assert [place.folder for place in places[:2]] == [
        top / "user.slice/user-1000.slice/user@1000.service/app.slice/run.scope",
        top / "user.slice/user-1000.slice/user@1000.service/app.slice",
    ]
    assert places[-1] == Hierarchy(top, 2, ("memory", "pids", "cpu"))
    assert len(places) == 6


def test_a_path_outside_of_the_namespace_stays_below_the_mount() -> None:
    assert [place.folder for place in candidates(VERSION_2, "0::/../../x\n")] == [
        Path("/sys/fs/cgroup/x"),
        Path("/sys/fs/cgroup"),
    ]


def variables(stage: Stage, host: dict[str, str], allowed: tuple[str, ...] = ()) -> dict[str, str]:
    return command_variables(
        stage, host, home=Path("/w/.home"), temporary=Path("/tmp"), path="/bin", import_roots=[Path("/src")],
        allowed=allowed,
    )  # fmt: skip


def test_variables_are_an_allow_list() -> None:
    host = {
        "OPENAI_API_KEY": "k", "HF_TOKEN": "k", "HOME": "/root", "PATH": "/evil", "LC_ALL": "C", "LANG": "de_DE.UTF-8",
        "OPENBLAS_CORETYPE": "Haswell", "MKL_DEBUG_CPU_TYPE": "5", "CUDA_VISIBLE_DEVICES": "0,1", "LD_PRELOAD": "x",
        "HF_ENDPOINT": "https://mirror", "WANTED": "yes", "PYTHONPATH": "/host",
    }  # fmt: skip
    seen = variables(Stage("s", "debug", ("x",)), host, ("WANTED",))
    assert seen == {
        "LANG": "de_DE.UTF-8", "LC_ALL": "C", "OPENBLAS_CORETYPE": "Haswell", "MKL_DEBUG_CPU_TYPE": "5",
        "WANTED": "yes", "PATH": "/bin", "HOME": "/w/.home", "TMPDIR": "/tmp", "USER": "ftagent",
        "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": "/src",
    }  # fmt: skip


def test_what_a_stage_declares_wins() -> None:
    stage = Stage(
        "s", "full", ("x",), network=True, resources=Resources(cpus=3, gpus=("2",)),
        mounts=(Mount("base model.v1", "/models/a"),),
        variables={"OMP_NUM_THREADS": "1", "PYTHONPATH": "/mine", "HOME": "/elsewhere"},
    )  # fmt: skip
    seen = variables(stage, {"HF_ENDPOINT": "https://mirror"})
    assert seen["OMP_NUM_THREADS"] == "1"
    assert seen["MKL_NUM_THREADS"] == "3"
    assert seen["PYTHONPATH"] == "/mine:/src"
    assert seen["HOME"] == "/elsewhere"
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["CUDA_DEVICE_ORDER"]) == ("2", "PCI_BUS_ID")
    assert seen["FTAGENT_INPUT_BASE_MODEL_V1"] == "/models/a"
    assert seen["HF_ENDPOINT"] == "https://mirror"
    assert "HF_HUB_OFFLINE" not in seen


@pytest.mark.parametrize("kind", ["ray", "kubernetes"])
def test_environments_that_are_not_there_are_named(kind: str) -> None:
    with pytest.raises(
        RequestError, match=rf"--env {kind}: .*; there are: auto, local, docker, conda(, module:class)?$"
    ):
        registry.create(kind)


def test_the_doctor_is_told_what_there_is(tmp_path: Path) -> None:
    found = registry.checks(tmp_path / "not" / "yet")
    assert [check.name for check in found] == [
        "sandbox (bubblewrap)", "control group: memory", "control group: pids", "disk", "GPU",
    ]  # fmt: skip
    for check in found:
        assert check.detail
        assert "\n" not in check.detail + check.hint
        assert check.ok or check.hint
    assert str(tmp_path) in found[3].detail
