"""The main job on the real small model, kept short: a run, its resumption after kill -9, its result by itself."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import FTAGENT  # type: ignore[attr-defined]
from support import story

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]
BENCHMARK = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2"
RUN = (
    "run", "--scenario", "llm", "--agent", "search", "--base-model", "smollm2-135m", "--benchmark", BENCHMARK,
    "--loop-n", "1", "--limit", "8", "-o", "train_tokens=1200", "-o", "checkpoint_steps=1",
)  # fmt: skip
Ftagent = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def whole(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run([*FTAGENT, *RUN, "--name", "x"], cwd=folder, env=environ, check=True, capture_output=True)
    return folder / "log/x"


def test_a_run_leaves_a_model_whose_score_can_be_measured_by_itself(whole: Path, ftagent: Ftagent) -> None:
    result = json.loads((whole / "result.json").read_text())
    assert result["status"] == "completed"
    assert result["test_openings"] == 1
    assert result["baseline"]["validation"]["n"] == result["baseline"]["test"]["n"] == 8
    best = result["best"]["loop"]
    adapter = whole / "best" if best is not None else None
    chosen = ("--adapter", adapter) if adapter else ()
    (document,) = ftagent("evaluate", "smollm2-135m", "--benchmark", BENCHMARK, "--limit", "8", *chosen)
    assert document["score"]["value"] == result["best"]["validation"]["value"]
    (shown,) = ftagent("show", whole)
    stages = [stage["name"] for stage in shown["experiments"][0]["stages"]]
    assert [name for name in ("prepare_data", "train", "predict") if name in stages] == [
        "prepare_data", "train", "predict"]  # fmt: skip
    assert (whole / "Loop_0/running/metrics.jsonl").is_file()
    assert "sealed test" in (whole / "report.md").read_text()


def test_a_run_killed_in_training_resumes_to_the_same_scores(
    whole: Path, environ: dict[str, str], tmp_path: Path, ftagent: Ftagent
) -> None:
    child = subprocess.Popen([*FTAGENT, *RUN, "--name", "x"], cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        deadline = time.monotonic() + 600
        checkpoints = tmp_path / "log/x/workspaces/Loop_0/full/model"
        while not list(checkpoints.glob("**/*checkpoint*")):
            assert child.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert "scored" not in [kind for kind, event in story(tmp_path / "log/x") if event.get("loop") == 0]
    ftagent("resume", "x")
    scores = [
        [e for e in story(path) if e[0] in ("proposed", "scored", "selected")] for path in (whole, tmp_path / "log/x")
    ]
    assert scores[0] == scores[1]


@pytest.mark.conda
def test_the_same_run_in_a_conda_environment_has_the_same_scores(
    whole: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    """Its own interpreter; torch is lent by this one, because no test can install it twice."""
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    spec = tmp_path / "spec.yaml"
    channel = os.environ.get("FTAGENT_TEST_CONDA_CHANNEL", "conda-forge")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    spec.write_text(f"channels: [{channel}, nodefaults]\ndependencies: [python={python}]\n")
    variables = {"FTAGENT_CONDA_ENV": str(spec), "FTAGENT_ENV_PACKAGES": str(Path(torch.origin).parents[1])}
    command = [*FTAGENT, *RUN, "--name", "x", "--env", "conda"]
    subprocess.run(command, cwd=tmp_path, env={**environ, **variables}, check=True, capture_output=True)
    run = tmp_path / "log/x"
    assert json.loads((run / "run.json").read_text())["environment"]["name"] == "conda"
    scores = [[e for e in story(path) if e[0] in ("proposed", "scored", "selected")] for path in (whole, run)]
    assert scores[0] == scores[1]


@pytest.mark.docker
def test_the_same_run_in_containers_has_the_same_scores(whole: Path, environ: dict[str, str], tmp_path: Path) -> None:
    """The image has Python alone; packages are lent by this one."""
    from support.docker_images import PYTHON, host_packages, need_image

    need_image()
    variables = {"FT_DOCKER_IMAGE": PYTHON, "FTAGENT_ENV_PACKAGES": str(host_packages())}
    command = [*FTAGENT, *RUN, "--name", "x", "--env", "docker"]
    subprocess.run(command, cwd=tmp_path, env={**environ, **variables}, check=True, capture_output=True)
    run = tmp_path / "log/x"
    assert json.loads((run / "run.json").read_text())["environment"]["name"] == "docker"
    scores = [[e for e in story(path) if e[0] in ("proposed", "scored", "selected")] for path in (whole, run)]
    assert scores[0] == scores[1]
    assert {os.lstat(path).st_uid for path in (run / "workspaces").rglob("*")} == {os.getuid()}


@pytest.mark.data
def test_gsm8k_from_a_mirror_trains_on_its_train_rows_only(ftagent: Ftagent, tmp_path: Path) -> None:
    *_, result = ftagent(
        "run", "--scenario", "llm", "--base-model", "smollm2-135m", "--benchmark", "gsm8k", "--loop-n", "1",
        "--limit", "4", "--name", "g", "-o", "train_tokens=2000", "-o", "max_new_tokens=48",
    )  # fmt: skip
    assert result["status"] == "completed"
    assert result["baseline"]["test"]["n"] == 4
    mirror = Path(os.environ["FTAGENT_DATA_MIRROR"]) / "gsm8k"
    rows = [json.loads(line)["question"] for line in (mirror / "train.jsonl").read_text().splitlines()]
    sealed = [json.loads(line)["question"] for line in (mirror / "test.jsonl").read_text().splitlines()]
    full = tmp_path / "log/g/workspaces/Loop_0/full"
    trained = [json.loads(line)["messages"] for line in (full / "train.jsonl").read_text().splitlines()]
    prompts = {next(m["content"] for m in messages if m["role"] == "user") for messages in trained}
    asked = [
        json.loads(line) for line in (tmp_path / "log/g/baseline/predictions_validation.jsonl").read_text().splitlines()
    ]
    assert len(prompts) > 100
    assert all(any(question in prompt for question in rows) for prompt in list(prompts)[:200])
    assert not any(question in prompt for prompt in prompts for question in sealed)
    assert len(asked) == 4
