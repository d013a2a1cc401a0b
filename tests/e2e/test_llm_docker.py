"""The main job in containers: the same seed gives the same scores as in `local`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import FTAGENT  # type: ignore[attr-defined]
from support import story
from support.docker_images import PYTHON, host_packages, why_no_image

pytestmark = [pytest.mark.docker, pytest.mark.model, pytest.mark.timeout(900)]
RUN = (
    "run", "--scenario", "llm", "--agent", "search", "--base-model", "smollm2-135m", "--benchmark",
    "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2", "--loop-n", "1", "--limit", "4",
    "-o", "train_tokens=600", "-o", "max_new_tokens=12", "--no-cache", "--name", "x",
)  # fmt: skip


def run(kind: str, environ: dict[str, str], folder: Path) -> Path:
    command = [*FTAGENT, *RUN, "--env", kind]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder / "log/x"


def ends(run: Path) -> list[tuple[str, str]]:
    return [
        (event["execution"]["stage"], event["execution"]["end"]) for kind, event in story(run) if kind == "stage_finished"
    ]


def judged(run: Path) -> list[tuple[str, dict[str, Any]]]:
    return [event for event in story(run) if event[0] in ("proposed", "scored", "selected")]


def test_a_loop_in_containers_scores_as_one_in_local(environ: dict[str, str], tmp_path: Path) -> None:
    if why := why_no_image():
        pytest.skip(why)
    lent = {**environ, "FT_DOCKER_IMAGE": PYTHON, "FTAGENT_ENV_PACKAGES": str(host_packages())}
    folders = [tmp_path / kind for kind in ("local", "docker")]
    for folder in folders:
        folder.mkdir()
    local, docker = run("local", environ, folders[0]), run("docker", lent, folders[1])
    assert json.loads((docker / "result.json").read_text())["status"] == "completed"
    assert judged(docker) == judged(local)
    assert ("train", "ok") in ends(docker)
    assert ends(docker) == ends(local)
    owners = {os.lstat(path).st_uid for path in (docker / "workspaces").rglob("*")}
    assert owners == {os.getuid()}
