"""Row 1 for calls of language models: killed at any append, no reply is paid for twice and no transcript differs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ftagent.agents.llm import LlmAgent
from ftagent.core.calls import Calls
from ftagent.core.events import Limits
from ftagent.core.run_folder import RunFolder
from ftagent.llm.models import build_client
from ftagent.settings import load
from support import drive, noop, story
from support.children import in_a_child

SCRIPT = """
prices: {input: 1.0, output: 10.0}
replies:
  - {role: propose, loop: 0, text: "no JSON at all", turn: 0}
  - {role: propose, text: '{"title": "try", "reason": "to see", "kind": "draft", "parent": null, "params": {"x": 0.5}}'}
  - {role: code, loop: 0, attempt: 0, text: "### file: params.json\\n```json\\n{broken\\n```\\n"}
  - {role: repair, text: "### file: params.json\\n```json\\n{\\"x\\": 0.6, \\"mode\\": \\"better\\"}\\n```\\n"}
  - {role: code, text: '{"use_template": true}'}
  - {role: reflect, text: '{"observations": ["seen"], "error_categories": [], "hypothesis_held": "yes", "next": "on"}'}
"""


def session(path: Path, script: Path) -> None:
    calls = Calls()
    settings = load(None, {"CHAT_MODEL": f"scripted/{script}"}, script.parent)
    client = build_client(settings, calls, lambda note: None, script.parent)
    drive(path, noop(script.parent), LlmAgent(client), limits=Limits(loop_n=2), calls=calls)


def transcripts(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.glob("Loop_*/*/transcript/*.json")}


@pytest.mark.parametrize("kind", ["before", "after", "torn"])
def test_killed_at_any_append_a_run_with_a_model_ends_the_same(tmp_path: Path, kind: str) -> None:
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT)
    whole = tmp_path / "whole"
    assert in_a_child(lambda: session(whole, script)) == 0
    expected = story(whole)
    assert [name for name, _ in expected].count("called") == 8
    cost = RunFolder(whole).state().cost_usd
    assert cost > 0
    for sequence in range(1, len(expected) + 1):
        path = tmp_path / f"{kind}-{sequence}"
        status = in_a_child(lambda path=path: session(path, script), f"{kind}:{sequence}")
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert in_a_child(lambda path=path: session(path, script)) == 0
        assert story(path) == expected, f"killed {kind} append {sequence}"
        assert transcripts(path) == transcripts(whole)
        assert RunFolder(path).state().cost_usd == pytest.approx(cost)
