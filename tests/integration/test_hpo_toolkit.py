"""train.yaml tuned on a benchmark, with the real small model: a trial, and its repetition with another seed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ftagent.core.context import Hardware, ScenarioContext
from ftagent.core.errors import StoppedEarly
from ftagent.core.types import Candidate, Purpose, Score, Split
from ftagent.core.workspace import Workspace
from ftagent.environments.local import LocalEnvironment
from ftagent_hpo.options import HpoOptions
from ftagent_hpo.scenario import HpoScenario

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(900)]
OPTIONS = {"train_tokens": "600", "train_rows": "60", "max_new_tokens": "6", "layers": "6"}


def execute(
    scenario: HpoScenario, candidate: Candidate, purpose: Purpose, workspace: Path, split: Split | None = None
) -> None:
    environment = LocalEnvironment()
    for stage in scenario.stages(candidate, purpose, split):
        Workspace(workspace).write({**candidate.files, **stage.files})
        done = asyncio.run(environment.execute(stage, workspace, lambda line: None, workspace.with_suffix(".log")))
        assert done.ok, done
        scenario.inspect(stage, workspace)


def measure(scenario: HpoScenario, candidate: Candidate, workspace: Path, split: Split) -> Score:
    execute(scenario, candidate, "predict", workspace, split)
    return asyncio.run(scenario.score(workspace / "predictions.jsonl", split))


def test_a_training_is_a_trial_that_can_be_repeated_and_stopped(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    cache = pytestconfig.cache
    assert cache is not None
    context = ScenarioContext(
        files_path=cache.mkdir("ftagent_files"), limit=4, base_model="smollm2-135m", hardware=Hardware(cpus=2),
        benchmark="rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1",
    )  # fmt: skip
    scenario = HpoScenario(HpoOptions(**OPTIONS, early_stopping="true"), context)
    baseline, workspace = scenario.baseline(), tmp_path / "base"
    execute(scenario, baseline, "full", workspace)
    found = measure(scenario, baseline, workspace, "validation")
    again = measure(scenario, baseline, workspace, "confirm")
    assert (found.n, again.n) == (4, 4)
    assert {item.split("/")[0] for item in found.outcomes} == {"seed0"}
    assert {item.split("/")[0] for item in again.outcomes} == {"seed1"}
    assert (workspace / "model/adapter_model.safetensors").is_file()
    assert not (workspace / "confirm/seed1").exists()  # measured, and not kept
    losses = [json.loads(line)["loss"] for line in (workspace / "model/metrics.jsonl").read_text().splitlines()]
    rung = {"step": 2, "needs": -(losses[1] / 2)}
    rules = {"metric": "-loss", "direction": "maximize", "rungs": [rung], "rule": "half the loss of the default"}
    stopped = Candidate(0, {**baseline.files, "stopping.json": json.dumps(rules)})
    with pytest.raises(StoppedEarly, match=r"^loss was .* at step 2, at most .* \(half the loss of the default\)$"):
        execute(scenario, stopped, "full", tmp_path / "stopped")
