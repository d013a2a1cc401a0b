"""Agents that tune, with a model behind a real server that speaks OpenAI's protocol."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftagent.cli import run as command_line
from ftagent.core.run_folder import RunFolder
from support.chat_server import ChatServer, Request, running_server

KEY = "sk-canary-9876543210"


def answer(request: Request) -> str:
    """What a model with little imagination says: it reads which step and parameter it is asked for."""
    asked = request.text
    if "Your step: reflect" in asked:
        said: dict[str, Any] = {
            "observations": ["x matters"], "error_categories": [], "hypothesis_held": "yes", "next": "closer to 0.7"
        }  # fmt: skip
    elif "Your step: narrow the space" in asked:
        said = {
            "important": ["x"], "ranges": [{"parameter": "x", "low": 0.6, "high": 0.8}], "choices": [],
            "fixed": [{"parameter": "mode", "value": "better"}], "why": "0.7 is said to be best",
        }  # fmt: skip
    elif "This is the first round" in asked:
        said = {"keys": ["x", "mode"], "base": None, "why": "x first", "parameter": "x", "value": 0.5, "reason": "half"}
    else:
        key = re.search(r"This round tunes (\w+)", asked)
        value: Any = "better" if key and key[1] == "mode" else 0.7
        said = {"parameter": key[1] if key else "", "value": value, "reason": "as the task says"}
    return f"```json\n{json.dumps(said)}\n```"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("OPENAI", "CHAT_", "FT_", "FTAGENT_MODEL", "EMBEDDING", "LITELLM")):
            monkeypatch.delenv(name)
    with running_server(default=answer, key=KEY, models=("small-model",)) as running:
        for name, value in {
            "CHAT_MODEL": "openai/small-model", "OPENAI_API_KEY": KEY, "OPENAI_API_BASE": running.url,
            "FTAGENT_MEMORY": "False", "FT_FILE_PATH": str(tmp_path / "files"),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield running


def started(*words: str) -> int:
    return command_line(["run", "--scenario", "noop", "-o", "items=100", "-o", "rounds=2", *words])


def test_rounds_are_asked_for_once_although_the_run_is_stopped_in_their_middle(
    server: ChatServer, tmp_path: Path
) -> None:
    words = ("-o", "plan=univariate", "--agent", "llm", "--loop-n", "4", "--name", "one")
    assert started(*words, "--step-n", "6") == 3
    assert len(server.requests) == 3  # two proposals, one reflection
    assert command_line(["resume", "one"]) == 0
    assert len(server.requests) == 2 * 4
    found = RunFolder(tmp_path / "log/one").state().experiments
    places = [(e.hypothesis.plan["key"], e.hypothesis.plan["round"]) for e in found]
    assert places == [("x", 1), ("x", 2), ("mode", 1), ("x", 1)]
    assert [e.hypothesis.params["x"] for e in found[:3]] == [0.5, 0.7, 0.7]
    assert found[2].hypothesis.params["mode"] == "better"
    assert found[3].hypothesis.notes[0].startswith("refused: x = 0.7 was tried")
    assert all(e.feedback is not None and e.feedback.next == "closer to 0.7" for e in found)
    assert command_line(["replay", "one"]) == 0
    assert len(server.requests) == 2 * 4


def test_the_hybrid_agent_asks_four_times_in_twenty_loops(server: ChatServer, tmp_path: Path) -> None:
    assert started("--agent", "hybrid", "--loop-n", "20", "--name", "two", "-o", "plan=joint") == 0
    assert len(server.requests) == 4
    found = RunFolder(tmp_path / "log/two").state().experiments
    assert all(0.6 <= e.hypothesis.params["x"] <= 0.8 and e.hypothesis.params["mode"] == "better" for e in found)
