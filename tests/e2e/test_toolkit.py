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
QUESTION, ANSWER = "What language are you written in?", "Python."
SETTINGS = {
    "model_name": "smollm2-135m",
    "model_path": "smollm2-135m",
    "map_function": "auto",
    "layers": 12,
    "epochs": 8,
    "learning_rate": 2e-3,
    "checkpoint_steps": 5,
    "keep_checkpoints": 2,
    "validation_share": 0.1,
    "validation_steps": 10,
}


def conversations() -> list[dict[str, Any]]:
    """Dialogues about artificial intelligence and small talk of a real corpus, in the conversation format."""
    import chatterbot_corpus

    rows = []
    for name in ("ai", "conversations"):
        path = Path(chatterbot_corpus.__file__).parent / "data" / "english" / f"{name}.yml"
        for number, turns in enumerate(yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]):
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
    for name in ("whole", "killed"):
        values = {**SETTINGS, "dataset_path": "conversations.json", "save_model_path": f"models/{name}"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(project: Path, environ: dict[str, str]) -> Path:
    """Trained twice: without interruption, and killed after a checkpoint and started again. The second is returned."""
    subprocess.run([*FTAGENT, "train", "whole.yaml"], cwd=project, env=environ, check=True, capture_output=True)
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


def test_a_killed_training_ends_as_one_that_was_not(trained: Path) -> None:
    whole, killed = metrics(trained.parent / "whole"), metrics(trained)
    assert [line["step"] for line in killed] == [line["step"] for line in whole]
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in (whole, killed)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] < 0.5 * losses[0][0]


def test_checkpoints_are_listed_with_the_best(trained: Path, ftagent: Callable[..., list[dict[str, Any]]]) -> None:
    (found,) = ftagent("checkpoints", trained)
    assert all(row["state"] == "complete" for row in found["checkpoints"])
    best = {row["step"] for row in found["checkpoints"] if row["best"]}
    assert len(best) == 1  # a result with the weights of the best step is marked as well


def test_the_merged_model_is_the_adapter(
    trained: Path, environ: dict[str, str], ftagent: Callable[..., list[dict[str, Any]]]
) -> None:
    merged = trained.parent / "merged"
    subprocess.run([*FTAGENT, "merge", "smollm2-135m", trained, merged], env=environ, check=True, capture_output=True)
    (checked,) = ftagent("check-model", merged)
    assert checked["ok"]
    answers = []
    for chosen in ([str(merged)], ["smollm2-135m", "--adapter", str(trained)], ["smollm2-135m"]):
        (played,) = ftagent("chat", *chosen, "--script", _script(trained.parent), "--temperature", "0")
        answers.append(played["messages"][-1]["content"])
    assert answers[0] == answers[1] == ANSWER
    assert answers[2] != ANSWER


def _script(folder: Path) -> Path:
    path = folder / "script.json"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": QUESTION}]}), encoding="utf-8")
    return path


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
        wait_for("/quit")
        tmux("send-keys", "-t", "chat", "-l", QUESTION)
        tmux("send-keys", "-t", "chat", "Enter")
        wait_for(ANSWER)
        tmux("send-keys", "-t", "chat", "/quit", "Enter")
    finally:
        subprocess.run(["tmux", "-S", socket, "kill-server"], capture_output=True, check=False)
