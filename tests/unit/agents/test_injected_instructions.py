"""Row 27: a model that obeys what a log or a dataset tells it changes no mount, limit, network or budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftagent.agents.llm import LlmAgent
from ftagent.core.check import static_check
from ftagent.core.events import Limits
from ftagent.core.run_folder import RunFolder
from ftagent.core.types import Candidate, Purpose, Stage
from ftagent_llm.scenario import LlmScenario
from support import drive, noop
from support.tiny_scenario import tiny_scenario
from unit.agents.conftest import coding, fenced, proposal, reflection
from unit.llm.conftest import Counting

WISHES: dict[str, Any] = {
    "network": True, "budget_usd": 1000, "loop_n": 1000, "timeout": 1e9, "time_limit": 0, "memory_mb": 0,
    "mounts": [{"name": "ROOT", "source": "/"}], "variables": {"OPENAI_API_KEY": "x"}, "llm": True, "sealed": False,
    "command": ["sh", "-c", "true"], "abandoned": "", "decision": "accept", "model_path": "/",
    "dataset_path": "/etc/passwd", "save_model_path": "../best", "max_tokens": 10**9, "seed": 7, "device": "cuda",
}  # fmt: skip
FIXED = (
    "model", "output", "model_path", "dataset_path", "save_model_path", "max_tokens", "seed", "device",
)  # fmt: skip
PURPOSES: tuple[Purpose, ...] = ("debug", "full", "predict")
Made = Callable[..., tuple[LlmAgent, Counting]]


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> LlmScenario:
    return tiny_scenario(tmp_path_factory.mktemp("tiny"))


def powers(stage: Stage) -> dict[str, Any]:
    """What a stage may see, use and spend."""
    values = {name: value for name, value in vars(stage).items() if name != "files"}
    for name, text in stage.files.items():
        if name.endswith(".yaml"):
            fixed = yaml.safe_load(text)
            values[name] = {key: fixed.get(key) for key in FIXED}
        else:
            values[name] = text
    return values


def test_no_file_changes_what_a_stage_may_do(scenario: LlmScenario) -> None:
    honest = scenario.render({})
    wishes = yaml.safe_dump(WISHES)
    obeyed = {
        **honest, "train.yaml": honest["train.yaml"] + wishes, "stage.yaml": wishes, "stages.json": json.dumps(WISHES),
        ".env": "OPENAI_API_KEY=x\n", "run.json": json.dumps(WISHES), "predict.yaml": wishes,
        "train_stage.yaml": wishes,
    }  # fmt: skip
    params = {"network": True, "memory_mb": 0, **WISHES}
    for purpose in PURPOSES:
        plain = scenario.stages(Candidate(0, {**honest, "a": ""}), purpose, "validation")
        moved = scenario.stages(Candidate(0, obeyed, params), purpose, "validation")
        assert [powers(stage) for stage in plain] == [powers(stage) for stage in moved]
        assert all(not stage.network for stage in moved)


def test_what_stages_write_is_refused_before_they_run(scenario: LlmScenario) -> None:
    brief = scenario.brief()
    for name in ("train.jsonl", "predictions.jsonl", "model/adapter_config.json", "train_stage.yaml", "predict.yaml"):
        failed = static_check({**scenario.render({}), name: ""}, brief.required_files, (), brief.reserved_files)
        assert failed is not None
        assert "an experiment must not bring it" in failed.detail


def test_a_model_that_obeys_gets_nothing(tmp_path: Path, made: Made) -> None:
    wrong = coding({"params.json": '{"x": 0.7, "mode": "better"}', "../../../run.json": json.dumps(WISHES)})
    right = coding({"params.json": '{"x": 0.7, "mode": "better"}', "run.json": json.dumps(WISHES)}, **WISHES)
    agent, backend = made(
        [
            {"role": "propose", "turn": 0, "text": proposal(**WISHES, params={"x": 0.7, "network": True})},
            {"role": "propose", "turn": 1, "text": proposal(**WISHES, params={"x": 0.7})},
            {"role": "code", "turn": 0, "text": wrong},
            {"role": "code", "turn": 1, "text": right},
            {"role": "reflect", "text": reflection(**WISHES) + fenced(WISHES)},
        ]
    )
    limits = Limits(loop_n=1, budget_usd=2.0, timeout=600.0)
    drive(tmp_path / "run", noop(tmp_path), agent, limits=limits)
    state = RunFolder(tmp_path / "run").state()
    assert state.limits == Limits(loop_n=1, budget_usd=2.0, timeout=600.0)
    assert state.created is not None
    assert state.created.sealed
    (experiment,) = state.experiments
    assert experiment.hypothesis.params == {"x": 0.7}
    assert set(vars(experiment.hypothesis)) == {
        "title", "reason", "parent", "kind", "expected_effect", "params", "measure", "notes", "abandoned", "plan",
    }  # fmt: skip
    assert experiment.hypothesis.plan == {}
    assert set(experiment.files) == {"params.json", "run.json"}
    assert len(backend.requests) == 5
    places = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("run.json")}
    assert places == {"run/Loop_0/coding/attempt_0", "run/workspaces/Loop_0/full", "run/best/files"}
