"""The engines that `.ci/run` starts answer, and the session is refused where a required one does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.docker
def test_docker_engine_answers() -> None:
    import docker

    client = docker.from_env()
    try:
        assert client.ping()
    finally:
        client.close()


@pytest.mark.conda
def test_conda_tells_its_version() -> None:
    done = subprocess.run(["conda", "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("conda ")


@pytest.mark.data
def test_mirror_files_exist() -> None:
    import json

    mirror = Path(os.environ["FTAGENT_DATA_MIRROR"])
    index = json.loads((mirror / "mirror.json").read_text())
    assert "openai/gsm8k" in json.dumps(index)


def session(require: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one data test in a session of its own."""
    environment = {**os.environ, "FTAGENT_REQUIRE": require, **variables}
    test = f"{__file__}::test_mirror_files_exist"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_a_required_engine_that_is_absent_fails_the_session(tmp_path: Path) -> None:
    done = session("data", FTAGENT_DATA_MIRROR=str(tmp_path))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "FTAGENT_REQUIRE is not met: data:" in done.stderr
    assert "mirror.json" in done.stderr


def test_an_absent_engine_skips_where_it_is_not_required(tmp_path: Path) -> None:
    done = session("", FTAGENT_DATA_MIRROR=str(tmp_path))
    assert done.returncode == pytest.ExitCode.OK
    assert "1 skipped" in done.stdout
    assert "has no mirror.json" in done.stdout


def test_an_unknown_engine_is_refused() -> None:
    done = session("dokcer")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "known are docker, conda, data, model, deepspeed" in done.stderr
