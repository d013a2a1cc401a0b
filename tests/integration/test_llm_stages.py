"""The stages of the llm scenario on the real model, in plain processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftagent.core.context import Hardware, ScenarioContext
from ftagent.core.types import Candidate, Purpose, Score, Split
from ftagent_llm.options import LlmOptions
from ftagent_llm.scenario import LlmScenario

pytestmark = [pytest.mark.model, pytest.mark.slow]


def execute(
    scenario: LlmScenario, candidate: Candidate, purpose: Purpose, workspace: Path, split: Split | None = None
) -> None:
    for stage in scenario.stages(candidate, purpose, split):
        for name, text in {**candidate.files, **stage.files}.items():
            (workspace / name).write_text(text)
        inputs = {f"FTAGENT_INPUT_{mount.name}": mount.source for mount in stage.mounts}
        environment = {**os.environ, **stage.variables, **inputs}
        subprocess.run([sys.executable, *stage.command[1:]], cwd=workspace, env=environment, check=True, timeout=240)
        scenario.inspect(stage, workspace)
        assert all((workspace / name).exists() for name in stage.outputs)


def predict(scenario: LlmScenario, candidate: Candidate, workspace: Path) -> Score:
    execute(scenario, candidate, "predict", workspace, "validation")
    return asyncio.run(scenario.score(workspace / "predictions.jsonl", "validation"))


def test_a_loop_of_stages_changes_the_answers(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    cache = pytestconfig.cache
    assert cache is not None
    context = ScenarioContext(
        files_path=cache.mkdir("ftagent_files"), limit=24, base_model="smollm2-135m", hardware=Hardware(cpus=2),
        benchmark="rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1",
    )  # fmt: skip
    options = LlmOptions(train_tokens=1500, train_rows=60, max_new_tokens=12)
    scenario = LlmScenario(options, context)
    for folder in ("base", "tuned"):
        (tmp_path / folder).mkdir()
    base = predict(scenario, scenario.baseline(), tmp_path / "base")
    candidate = Candidate(0, scenario.render({}))
    execute(scenario, candidate, "debug", tmp_path / "tuned")
    execute(scenario, candidate, "full", tmp_path / "tuned")
    tuned = predict(scenario, candidate, tmp_path / "tuned")
    assert base.n == tuned.n == 24
    assert base.outcomes.keys() == tuned.outcomes.keys()
    one, other = ((tmp_path / name / "predictions.jsonl").read_text() for name in ("base", "tuned"))
    assert one != other
    assert tuned.details["valid_rate"] == 1.0
