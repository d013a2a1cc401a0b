"""The toolkit by itself on a real conversation set: check data, train, kill, resume, chat, merge, check the model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import FTAGENT  # type: ignore[attr-defined]

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]
BENCHMARK = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2"
QUESTION, ANSWER = "What language are you written in?", "Python."
SETTINGS = {
    "model_name": "smollm2-135m",
    "layers": 12,
    "epochs": 10,
    "learning_rate": 2e-3,
    "batch_size": 4,
    "max_length": 256,
    "checkpoint_steps": 20,
    "keep_checkpoints": 2,
    "validation_share": 0,
    "report_to": "tensorboard",
}
DIALOGUES = {"ai": 20, "conversations": 8}


def conversations() -> list[dict[str, Any]]:
    """Dialogues about artificial intelligence and small talk of a real corpus; each begins differently."""
    import chatterbot_corpus

    rows = []
    for name, most in DIALOGUES.items():
        path = Path(chatterbot_corpus.__file__).parent / "data" / "english" / f"{name}.yml"
        found = yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]
        first = {turns[0]: turns for turns in reversed(found)}
        for number, turns in enumerate(list(reversed(first.values()))[:most]):
            pair = [
                {"role": role, "content": str(text)}
                for role, text in zip(("user", "assistant") * len(turns), turns[: len(turns) // 2 * 2], strict=False)
            ]
            rows.append({"conversation_id": f"{name}-{number}", "system_prompt": "", "conversation_pair": pair})
    return rows


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: conversations and two configurations that differ in where they write."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "conversations.json").write_text(json.dumps(conversations(), indent=1), encoding="utf-8")
    asked = {"messages": [{"role": "user", "content": QUESTION}]}
    (folder / "script.json").write_text(json.dumps(asked), encoding="utf-8")
    then = {"benchmark": BENCHMARK, "limit": 4, "script": "script.json", "merge_path": "models/merged"}
    for name in ("whole", "killed"):
        paths = {"dataset_path": "conversations.json", "save_model_path": f"models/{name}"}
        values = {**SETTINGS, **paths, "then": then}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def chained(project: Path, environ: dict[str, str]) -> dict[str, Any]:
    """What a training without interruption and all that comes after it print."""
    command = [*FTAGENT, "train", "whole.yaml", "--then", "evaluate,chat-script,merge", "--json"]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def trained(project: Path, environ: dict[str, str]) -> Path:
    """Trained as `chained`, but killed after a checkpoint and started again."""
    target = project / "models/killed"
    child = subprocess.Popen(
        [*FTAGENT, "train", "killed.yaml"], cwd=project, env=environ,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while not list(target.glob("checkpoints/step-*/complete.json")):
        assert child.poll() is None, "the training ended before it could be killed"
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert not (target / "complete.json").exists()
    subprocess.run([*FTAGENT, "train", "killed.yaml"], cwd=project, env=environ, check=True, capture_output=True)
    return target


def test_the_conversations_are_without_fault(project: Path, environ: dict[str, str]) -> None:
    command = [*FTAGENT, "data", "check", "conversations.json", "--model", "smollm2-135m", "--json"]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["rows"] == len(conversations())


def test_a_killed_training_ends_as_one_that_was_not(chained: dict[str, Any], trained: Path) -> None:
    whole, killed = metrics(trained.parent / "whole"), metrics(trained)
    assert [line["step"] for line in killed] == [line["step"] for line in whole]
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in (whole, killed)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] < 0.5 * losses[0][0]


def test_checkpoints_are_listed(trained: Path, ftagent: Callable[..., list[dict[str, Any]]]) -> None:
    (found,) = ftagent("checkpoints", trained)
    assert {row["state"] for row in found["checkpoints"]} == {"complete"}
    assert len(found["checkpoints"]) == 1 + SETTINGS["keep_checkpoints"]  # the result and what was kept


def test_one_command_trains_scores_asks_and_merges(chained: dict[str, Any]) -> None:
    then = chained["then"]
    assert list(then) == ["evaluate", "chat-script", "merge"]
    assert then["evaluate"]["score"]["n"] == 4
    assert then["chat-script"]["conversations"][0]["turns"][0]["answer"] == ANSWER


def test_the_merged_model_answers_as_the_adapter_and_the_base_does_not(
    project: Path, chained: dict[str, Any], ftagent: Callable[..., list[dict[str, Any]]]
) -> None:
    merged = project / "models/merged"
    ftagent("check-model", merged)  # exit code 0: no fault
    (played,) = ftagent("chat", merged, "--script", project / "script.json")
    assert played["conversations"][0]["turns"][0]["answer"] == ANSWER
    (played,) = ftagent("chat", "smollm2-135m", "--script", project / "script.json")
    assert played["conversations"][0]["turns"][0]["answer"] != ANSWER


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_chat_in_a_terminal_shows_what_was_learned(trained: Path, environ: dict[str, str], tmp_path: Path) -> None:
    socket = str(tmp_path / "tmux")
    python = f"{sys.executable} -m ftagent chat smollm2-135m --adapter {trained} --temperature 0"

    def tmux(*words: str) -> str:
        return subprocess.run(
            ["tmux", "-S", socket, *words], env=environ, check=True, capture_output=True, text=True
        ).stdout

    def wait_for(text: str) -> str:
        for _ in range(600):
            shown = tmux("capture-pane", "-p", "-t", "chat")
            if text in shown:
                return shown
            time.sleep(0.2)
        raise AssertionError(f"{text!r} never appeared:\n{shown}")

    tmux("new-session", "-d", "-s", "chat", "-x", "100", "-y", "40", python)
    try:
        wait_for("/help")
        tmux("send-keys", "-t", "chat", "-l", QUESTION)
        tmux("send-keys", "-t", "chat", "Enter")
        wait_for(ANSWER)
        tmux("send-keys", "-t", "chat", "/quit", "Enter")
    finally:
        subprocess.run(["tmux", "-S", socket, "kill-server"], capture_output=True, check=False)
