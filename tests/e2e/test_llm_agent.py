"""The llm agent with a scripted and the real small model: three loops, killed in the middle, resumed, replayed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import FTAGENT  # type: ignore[attr-defined]
from ftagent.core.run_folder import RunFolder

pytestmark = [pytest.mark.model, pytest.mark.timeout(1500)]
SCRIPT = Path(__file__).parent.parent / "fixtures/scripted/three_loops/script.yaml"
CANARY = "sk-canary-7f3a9c51d2e84b60"
RUN = (
    "run", "--scenario", "llm", "--agent", "llm", "--base-model", "smollm2-135m",
    "--benchmark", "rg:isomorphic_strings", "--loop-n", "3", "--limit", "16", "--name", "x", "--budget-usd", "1",
    "-o", "train_tokens=4000",    "-o", "checkpoint_steps=4", "-o", "max_new_tokens=16",
)  # fmt: skip


@pytest.fixture(scope="module")
def environ_llm(environ: dict[str, str]) -> dict[str, str]:
    return {**environ, "CHAT_MODEL": f"scripted/{SCRIPT}", "OPENAI_API_KEY": CANARY, "FTAGENT_MEMORY": "False"}


@pytest.fixture(scope="module")
def resumed(environ_llm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed once the repair of loop 1 was on record, and resumed to its end."""
    folder = tmp_path_factory.mktemp("agent")
    child = subprocess.Popen(
        [*FTAGENT, *RUN], cwd=folder, env=environ_llm, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        repaired = folder / "log/x/Loop_1/coding/transcript/1.0_repair.json"
        deadline = time.monotonic() + 900
        while not repaired.exists():
            assert child.poll() is None, child.stderr.read() if child.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        child.wait()
        if child.stderr:
            child.stderr.close()
    done = subprocess.run([*FTAGENT, "resume", "x"], cwd=folder, env=environ_llm, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "log/x"


def test_the_three_loops_end_as_their_code_deserves(resumed: Path) -> None:
    state = RunFolder(resumed).state()
    first, mended, worse = state.experiments
    assert first.feedback is not None
    assert first.feedback.decision == "accept"
    assert first.attempts == 1
    assert mended.attempts == 2
    rehearsals = [record.execution for record in mended.stages if record.purpose == "debug"]
    assert rehearsals[0].end == "failed"
    assert "KeyError" in rehearsals[0].tail
    assert all(execution.ok for execution in rehearsals[1:])
    assert mended.validation is not None
    assert worse.validation is not None
    assert first.validation is not None
    assert worse.validation.value < first.validation.value
    assert worse.feedback is not None
    assert worse.feedback.decision == "reject"
    assert state.status == "completed"


def test_every_call_is_paid_once_and_shown(resumed: Path, environ_llm: dict[str, str]) -> None:
    state = RunFolder(resumed).state()
    calls = [call for made in state.calls.values() for call in made]
    roles = [(call.loop, call.role) for call in sorted(calls, key=lambda call: (call.loop or 0, call.step))]
    assert sorted(roles) == sorted(
        [(loop, role) for loop in range(3) for role in ("propose", "code", "reflect")] + [(1, "repair")]
    )
    assert all(call.cost_usd for call in calls)
    assert state.cost_usd == pytest.approx(sum(call.cost_usd or 0 for call in calls))
    shown = subprocess.run(
        [*FTAGENT, "show", str(resumed), "--json"], env=environ_llm, capture_output=True, text=True, check=True
    )
    costs = [experiment["cost_usd"] for experiment in json.loads(shown.stdout)["experiments"]]
    assert sum(costs) == pytest.approx(state.cost_usd)


@pytest.mark.parametrize("execute", [False, True], ids=["replies", "replies and commands"])
def test_it_replays_without_network_and_key_to_the_same_bytes_and_scores(
    resumed: Path, environ_llm: dict[str, str], tmp_path: Path, execute: bool
) -> None:
    environ = {name: value for name, value in environ_llm.items() if name not in ("OPENAI_API_KEY", "CHAT_MODEL")}
    again = tmp_path / "again"
    words = ["replay", str(resumed), "--json", "--out", str(again), *(["--execute"] if execute else [])]
    done = subprocess.run(["unshare", "-rn", *FTAGENT, *words], env=environ, capture_output=True, text=True)
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["equal"], document
    assert done.returncode == 0
    transcripts = sorted(path.relative_to(resumed) for path in resumed.glob("Loop_*/*/transcript/*.json"))
    assert len(transcripts) == 10
    for path in transcripts:
        assert (again / path).read_bytes() == (resumed / path).read_bytes()


def test_no_prompt_holds_the_key_or_a_test_value(resumed: Path) -> None:
    state = RunFolder(resumed).state()
    asked = [json.loads(path.read_text()) for path in resumed.glob("Loop_*/*/transcript/*.json")]
    prompts = "\n".join(message["content"] for document in asked for message in document["request"]["messages"])
    sealed = (resumed / "baseline/predictions_test.jsonl").read_text().splitlines()
    assert state.test_openings == 1
    assert not [row for row in sealed if json.loads(row)["id"] in prompts]
    for path in resumed.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
