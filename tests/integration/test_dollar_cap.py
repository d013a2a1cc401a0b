"""Row 26: parallel experiments and the scripts in their workspaces under one small cap, through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftagent.core.run_folder import RunFolder

CAP = 0.05
CANARY = "sk-canary-51c08f6f2b7d4e93"
SCRIPT = """
prices: {input: 1.0, output: 100.0}
reply_tokens: 40
replies:
  - {role: propose, seconds: 0.05, usage: {prompt: 100, completion: 30}, text: '{"title": "try", "reason": "to see",
     "kind": "draft", "parent": null, "params": {}}'}
  - {role: code, seconds: 0.05, usage: {prompt: 100, completion: 20}, text: '{"use_template": true}'}
  - {role: reflect, seconds: 0.05, usage: {prompt: 100, completion: 40}, text: '{"observations": ["seen"],
     "error_categories": [], "hypothesis_held": "unclear", "next": "more"}'}
"""


@pytest.mark.timeout(300)
def test_parallel_experiments_overspend_a_cap_by_at_most_one_call(tmp_path: Path) -> None:
    (tmp_path / "script.yaml").write_text(SCRIPT)
    environ = {
        **os.environ, "CHAT_MODEL": "scripted/script.yaml", "OPENAI_API_KEY": CANARY,
        "FT_FILE_PATH": str(tmp_path / "files"),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "ftagent", "run", "--scenario", "noop", "--agent", "llm", "--name", "x", "--json",
        "--parallel", "4", "--loop-n", "100", "--budget-usd", str(CAP), "-o", "stages=1",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert (document["status"], document["limit"]) == ("budget", "--budget-usd")
    state = RunFolder(tmp_path / "log/x").state()
    costs = [call.cost_usd for calls in state.calls.values() for call in calls]
    assert len(costs) >= 10
    assert all(cost is not None for cost in costs)
    spent = sum(cost or 0.0 for cost in costs)
    assert document["cost_usd"] == pytest.approx(spent)
    assert CAP - max(cost or 0.0 for cost in costs) < spent <= CAP + max(cost or 0.0 for cost in costs)
    for path in (tmp_path / "log").rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
    assert CANARY not in done.stdout + done.stderr


def test_a_cap_over_a_model_without_a_price_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "script.yaml").write_text(SCRIPT.replace("prices: {input: 1.0, output: 100.0}", ""))
    environ = {**os.environ, "CHAT_MODEL": "scripted/script.yaml", "FT_FILE_PATH": str(tmp_path / "files")}
    command = [sys.executable, "-m", "ftagent", "run", "--scenario", "noop", "--agent", "llm", "--budget-usd", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 2
    assert "FTAGENT_MODEL_PRICES" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "log").exists()
