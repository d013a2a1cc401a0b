"""Rows 4, 6 and 7: a full disk, a second process, simultaneous starts. Through the command line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import story
from support.disks import small_disk

FTAGENT = [sys.executable, "-m", "ftagent"]


def ftagent(*arguments: str | Path, cwd: Path, **more: object) -> subprocess.CompletedProcess[str]:
    command = [*FTAGENT, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False, **more)  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted run leaves."""
    folder = tmp_path_factory.mktemp("whole")
    assert ftagent("run", "--scenario", "noop", "--loop-n", "3", "--name", "x", cwd=folder).returncode == 0
    return folder / "log/x"


@pytest.mark.parametrize("kilobytes", [0, 12, 28, 44])
def test_a_full_disk_stops_the_run_and_space_resumes_it(whole: Path, tmp_path: Path, kilobytes: int) -> None:
    command = ["run", "--scenario", "noop", "--loop-n", "3", "--name", "x"]
    with small_disk(tmp_path / "small", "4m") as disk:
        assert ftagent(*command, "--log-dir", disk / "log", "--step-n", "2", cwd=tmp_path).returncode == 3
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - 1024 * kilobytes))
        done = ftagent("resume", disk / "log/x", cwd=tmp_path)
        assert done.returncode == 3, done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert len(errors) == 1, done.stderr
        assert "no space left" in errors[0].lower()
        assert "Traceback" not in done.stderr
        filler.unlink()
        done = ftagent("resume", disk / "log/x", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert story(disk / "log/x") == story(whole)


def test_a_stage_that_would_fill_the_disk_is_not_started(tmp_path: Path) -> None:
    command = ["run", "--scenario", "noop", "--loop-n", "2", "--name", "x", "-o", "stages=1"]
    assert ftagent(*command, cwd=tmp_path).returncode == 0
    with small_disk(tmp_path / "small", "4m") as disk:
        run = disk / "log/x"
        assert ftagent(*command, "--log-dir", disk / "log", "--step-n", "3", cwd=tmp_path).returncode == 3
        before = story(run)
        assert before[-1][0] == "built"
        filler = disk / "filler"
        # Room for everything that the stage writes, but not for the MiB that the scenario estimates.
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - 600 * 1024))
        done = ftagent("resume", run, cwd=tmp_path)
        assert done.returncode == 3, done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert len(errors) == 1, done.stderr
        assert "0.6 MiB free, work of loop 0 needs about 1.0 MiB; free some space" in errors[0]
        assert story(run) == before
        filler.unlink()
        done = ftagent("resume", run, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert story(run) == story(tmp_path / "log/x")


def test_no_space_at_all_is_refused_before_anything_is_there(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "4k") as disk:
        (disk / "full").write_bytes(b"x" * 4096)
        done = ftagent("run", "--scenario", "noop", "--log-dir", disk / "log", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
        assert not list(disk.glob("log/*"))


def test_a_second_process_is_refused_and_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    command = [
        *FTAGENT,
        "run",
        "--scenario",
        "noop",
        "--loop-n",
        "2",
        "--name",
        "x",
        "-o",
        "stages=1",
        "-o",
        "sleep=60",
    ]
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("log/x/workspaces/Loop_0/full/work.py")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second = ftagent("resume", "x", cwd=tmp_path)
        assert second.returncode == 2
        assert f"process {first.pid}" in second.stderr
        first.send_signal(signal.SIGKILL)
        first.wait()
        third = ftagent("resume", "x", "--step-n", "0", cwd=tmp_path)
        assert "held by" not in third.stderr
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(first.pid, signal.SIGKILL)
        first.wait()


def test_simultaneous_starts_never_share_a_folder(tmp_path: Path) -> None:
    command = [*FTAGENT, "run", "--scenario", "noop", "--loop-n", "1", "--name", "same", "--json"]
    children = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(20)
    ]
    outputs = [child.communicate(timeout=240) for child in children]
    assert [child.returncode for child in children] == [0] * 20, outputs
    runs = {json.loads(out.splitlines()[-1])["run"] for out, _ in outputs}
    assert len(runs) == 20
    stories = [story(tmp_path / run) for run in runs]
    assert all(one == stories[0] for one in stories)
