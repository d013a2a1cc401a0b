"""Control groups of version 2 on a real hierarchy, as far as this machine has one, and what their files say."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from ftagent.core.types import Resources
from ftagent.environments import limits
from ftagent.environments.limits import Group, Hierarchy, candidates


@pytest.fixture
def version_2() -> Hierarchy:
    """Where a group of version 2 can be made. It need not have controllers: those of version 1 may hold them."""
    mounts, own = Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
    for place in candidates(mounts, own):
        if place.version == 2 and os.access(place.folder, os.W_OK):
            return place
    pytest.skip("no writable control group of version 2")


def test_a_whole_tree_enters_and_is_killed_at_once(version_2: Hierarchy) -> None:
    folder = version_2.folder / f"ftagent-{os.getpid()}-test"
    folder.mkdir()
    group = Group({"pids": folder}, {"pids": 2})
    script = 'echo 0 > "$1" && exec sh -c "sh -c \'sleep 60\' & setsid sleep 60 & wait"'
    try:
        with subprocess.Popen(["sh", "-c", script, "sh", *group.entrances]) as process:
            deadline = time.monotonic() + 10
            while len(group.members()) < 3:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert process.pid in group.members()
            assert group.kill(5.0)
            assert group.members() == []
            assert process.wait(5) == -9
    finally:
        group.remove()
    assert not folder.exists()


def test_controllers_that_are_not_handed_down_are_not_promised(version_2: Hierarchy) -> None:
    """Where version 1 holds the controllers, or an ancestor keeps them, the limits come from elsewhere."""
    handed = (version_2.folder / "cgroup.subtree_control").read_text().split()
    found = limits.discover()
    for controller, place in found.items():
        assert place.version == 1 or controller in handed
    if not {"memory", "pids"} <= set(handed):
        group = limits.make_group(dict.fromkeys(("memory", "pids"), version_2), Resources(memory_mb=100), 0)
        assert group.folders == {}
        assert list(version_2.folder.glob(f"ftagent-{os.getpid()}-*")) == []


def test_what_the_files_of_both_versions_say(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
    (tmp_path / "memory.peak").write_text("104857600\n")
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    (tmp_path / "memory.max_usage_in_bytes").write_text("7\n")
    two, one = Group({"memory": tmp_path}, {"memory": 2}), Group({"memory": tmp_path}, {"memory": 1})
    assert (two.oom_kills(), two.peak_bytes()) == (2, 104857600)
    assert (one.oom_kills(), one.peak_bytes()) == (5, 7)
    # Kernels before 5.19 have no memory.peak.
    (tmp_path / "memory.peak").unlink()
    assert two.peak_bytes() is None


def test_the_limits_of_version_2_are_set_in_its_own_words(tmp_path: Path) -> None:
    place = Hierarchy(tmp_path, 2, limits.CONTROLLERS)
    resources = Resources(cpus=2, memory_mb=300, processes=40)
    group = limits.make_group(dict.fromkeys(limits.CONTROLLERS, place), resources, own_processes=2)
    (folder,) = group.unique
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "memory.max": "314572800", "memory.swap.max": "0", "pids.max": "42", "cpu.max": "200000 100000",
    }  # fmt: skip
