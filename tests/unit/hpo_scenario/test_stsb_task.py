"""The task `stsb` on a model so small that a training is all imports: what a workspace gets, what training leaves."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import ScoreUnavailable, StoppedEarly
from ftagent.core.statistics import pooled
from ftagent.core.types import Candidate, Score, Split, Stage
from ftagent.environments.choosing import stack_of
from ftagent_hpo.config import PACKAGED, packaged_text
from ftagent_hpo.options import HpoOptions
from ftagent_hpo.scenario import HpoScenario

from .sentences import write_model, write_pairs

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


def make(folder: Path, base: Path, pairs: Path, **given: str) -> HpoScenario:
    values = {"BASE_MODEL": str(base), "STSB_PATH": str(pairs), "STSB_TRAIN_SPLIT": "train[:40]",
              "LEARNING_RATE": "1e-3", "TRAIN_BATCH_SIZE": "8", "EVAL_STEPS": "2", **given}  # fmt: skip
    documents = {PACKAGED: packaged_text()}
    return HpoScenario(HpoOptions(**values), ScenarioContext(files_path=folder / "files", documents=documents))  # type: ignore[arg-type]


def execute(scenario: HpoScenario, stages: Sequence[Stage], candidate: Candidate, workspace: Path) -> str:
    """What the stages printed; each must end well and leave its outputs."""
    said = ""
    for stage in stages:
        workspace.mkdir(parents=True, exist_ok=True)
        for name, text in {**candidate.files, **stage.files}.items():
            (workspace / name).write_text(text)
        inputs = {f"FTAGENT_INPUT_{mount.name}": mount.source for mount in stage.mounts}
        environment = {**os.environ, **stage.variables, **inputs, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, *stage.command[1:]], cwd=workspace, env=environment, timeout=200,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert all((workspace / name).exists() for name in stage.outputs), stage.name
        scenario.inspect(stage, workspace)
        said += done.stdout
    return said


def train(scenario: HpoScenario, workspace: Path, candidate: Candidate | None = None) -> str:
    candidate = candidate or scenario.baseline()
    return execute(scenario, scenario.stages(candidate, "full"), candidate, workspace)


def score(scenario: HpoScenario, workspace: Path, split: Split) -> Score:
    return asyncio.run(scenario.score(workspace / "predictions.jsonl", split))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_no_gold_value_of_a_measured_pair_enters_a_workspace(tmp_path: Path, base: Path, pairs: Path) -> None:
    scenario = make(tmp_path, base, pairs)
    baseline = scenario.baseline()
    (training,) = scenario.stages(baseline, "full")
    assert scenario.stages(baseline, "predict", "validation") == scenario.stages(baseline, "debug") == []
    (testing,) = scenario.stages(baseline, "predict", "test")
    for stage, name, count in ((training, "dev", 24), (testing, "test", 20)):
        asked = [json.loads(line) for line in stage.files["pairs.jsonl"].splitlines()]
        assert [set(row) for row in asked] == [{"id", "sentence1", "sentence2"}] * count
        assert asked[0]["id"] == f"{name}-0"
    assert testing.mounts == ()
    measured = {json.loads(line)["sentence1"] for stage in (training, testing)
                for line in stage.files["pairs.jsonl"].splitlines()}  # fmt: skip
    mounted = [Path(mount.source) for mount in training.mounts if mount.name != "MODEL"]
    assert not measured & {row["sentence1"] for path in mounted for row in rows(path)}


def test_an_experiment_decides_only_what_is_tuned(tmp_path: Path, base: Path, pairs: Path) -> None:
    scenario = make(tmp_path, base, pairs)
    wished = {
        "SEED": 1,
        "OUTPUT_DIR_ROOT": "/",
        "BASE_MODEL": "other",
        "NUM_TRAIN_EPOCHS": 99,
        "LOSS": "cosent",
        "X": 1,
    }
    candidate = Candidate(0, {"config.json": json.dumps(wished)}, {})
    (stage,) = scenario.stages(candidate, "full")
    config, job = json.loads(stage.files["config.json"]), json.loads(stage.files["job.json"])
    assert (config["NUM_TRAIN_EPOCHS"], config["LOSS"], config["OUTPUT_DIR_ROOT"]) == (4, "cosent", "model")
    assert (config["BASE_MODEL"], job["seed"], job["folder"], "X" in config) == (str(base), 42, "model", False)
    for text in ("[]", "{", ""):
        (stage,) = scenario.stages(Candidate(0, {"config.json": text}, {}), "full")
        assert stage.files["config.json"] == scenario.baseline().files["config.json"]


def test_a_training_is_scored_tested_repeated_and_the_same_again(tmp_path: Path, base: Path, pairs: Path) -> None:
    scenario = make(tmp_path, base, pairs, CONFIRM_SEEDS="2", SAVE_STEPS="2")
    baseline = scenario.baseline()
    train(scenario, tmp_path / "a")
    metrics = rows(tmp_path / "a/metrics.jsonl")
    assert [row["step"] for row in metrics] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in metrics if "spearman" in row] == [2, 4, 5]
    first = score(scenario, tmp_path / "a", "validation")
    assert {name.partition("/")[0] for name in first.outcomes} == {"seed0"}
    assert first.n == 24
    assert first.details["latency_ms"] > 0

    train(scenario, tmp_path / "b")
    assert (tmp_path / "a/metrics.jsonl").read_text() == (tmp_path / "b/metrics.jsonl").read_text()
    assert score(scenario, tmp_path / "b", "validation").outcomes == first.outcomes

    stages = scenario.stages(baseline, "predict", "confirm")
    assert [stage.name for stage in stages] == ["train_seed1", "keep_seed1", "train_seed2", "keep_seed2"]
    execute(scenario, stages, baseline, tmp_path / "a")
    again = score(scenario, tmp_path / "a", "confirm")
    assert {name.partition("/")[0] for name in again.outcomes} == {"seed1", "seed2"}
    assert pooled(first, again).n == 24
    assert len(set(again.outcomes.values())) > 24  # another seed, another training
    assert not (tmp_path / "a/confirm/seed1").exists()
    assert (tmp_path / "a/metrics.jsonl").read_text() == (tmp_path / "b/metrics.jsonl").read_text()

    execute(scenario, scenario.stages(baseline, "predict", "test"), baseline, tmp_path / "a")
    assert score(scenario, tmp_path / "a", "test").n == 20


def test_an_interrupted_training_goes_on_to_the_same_end(tmp_path: Path, base: Path, pairs: Path) -> None:
    scenario = make(tmp_path, base, pairs, SAVE_STEPS="2", EVAL_STEPS="0")
    train(scenario, tmp_path / "whole")
    (stage,) = scenario.stages(scenario.baseline(), "full")
    script = stage.files["train_stsb.py"]
    saving = 'if config["SAVE_STEPS"] and'
    broken = script.replace(saving, f"if step == 3:\n                sys.exit('killed')\n            {saving}")
    assert broken != script
    workspace = tmp_path / "parts"
    with pytest.raises(AssertionError, match="killed"):
        execute(scenario, [_with(stage, "train_stsb.py", broken)], scenario.baseline(), workspace)
    assert not (workspace / "model").exists()
    assert "goes on after step 2" in train(scenario, workspace)
    for name in ("metrics.jsonl", "predictions.jsonl"):
        assert _without_time(workspace / name) == _without_time(tmp_path / "whole" / name)
    assert sorted(path.name for path in workspace.iterdir() if path.name.startswith("model")) == ["model"]


def test_out_of_memory_computes_fewer_pairs_at_once_and_says_so(tmp_path: Path, base: Path, pairs: Path) -> None:
    """A worker that cannot have more than 10 pairs at once: the update is that of the whole batch."""
    whole = make(tmp_path, base, pairs, TRAIN_BATCH_SIZE="40", NUM_TRAIN_EPOCHS="2")
    train(whole, tmp_path / "whole")
    (stage,) = whole.stages(whole.baseline(), "full")
    script = stage.files["train_stsb.py"]
    compute = "vectors = model.embed("
    small = script.replace(compute, f"if len(part) > 10:\n            raise MemoryError\n        {compute}")
    assert small != script
    said = execute(whole, [_with(stage, "train_stsb.py", small)], whole.baseline(), tmp_path / "parts")
    assert "out of memory: 20 pairs at once from now on, an update still sees 40" in said
    assert "out of memory: 10 pairs at once from now on" in said
    found = score(whole, tmp_path / "parts", "validation")
    assert found.notes == ("out of memory: 10 pairs at once instead of 40; an update still saw 40",)
    losses = [[row["loss"] for row in rows(tmp_path / name / "metrics.jsonl")] for name in ("parts", "whole")]
    assert losses[0] == pytest.approx(losses[1], rel=0.2)  # dropout differs, the data do not


def test_a_trial_that_cannot_win_is_stopped_by_the_rules_of_the_agent(tmp_path: Path, base: Path, pairs: Path) -> None:
    scenario = make(tmp_path, base, pairs, EARLY_STOPPING="true", EVAL_STEPS="1")
    assert "trial.json" not in scenario.stages(scenario.baseline(), "full")[0].files
    plan = scenario.brief().plan
    assert plan is not None
    assert plan.halving is not None
    rules = {"metric": plan.halving.metric, "direction": "maximize", "rungs": [{"step": 1, "needs": 2.0}]}
    candidate = Candidate(0, {**scenario.baseline().files, plan.stopping_file: json.dumps(rules)}, {})
    with pytest.raises(StoppedEarly, match=r"spearman was .* at step 1, at least 2 was needed"):
        train(scenario, tmp_path / "w", candidate)
    easy = {**rules, "rungs": [{"step": 1, "needs": -1.0}]}
    candidate = Candidate(1, {**candidate.files, plan.stopping_file: json.dumps(easy)}, {})
    train(scenario, tmp_path / "v", candidate)
    assert score(scenario, tmp_path / "v", "validation").n == 24


def test_images_and_environments_have_what_the_scripts_import(tmp_path: Path, base: Path, pairs: Path) -> None:
    (stage,) = (scenario := make(tmp_path, base, pairs)).stages(scenario.baseline(), "full")
    trees = [ast.walk(ast.parse(text)) for name, text in stage.files.items() if name.endswith(".py")]
    nodes = [node for tree in trees for node in tree]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    needed = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"sentence_model"}
    assert needed == {"torch", "transformers"}
    image = "".join((ROOT / "docker/tabular" / name).read_text() for name in ("Dockerfile", "requirements.txt"))
    conda = (ROOT / "src/ftagent/environments/specs/tabular.yaml").read_text()
    assert stack_of("hpo") == "tabular"
    assert all(f"{name}==" in image and f"- {name}>=" in conda for name in needed)


def test_a_package_that_an_environment_lacks_is_one_line(tmp_path: Path, base: Path, pairs: Path) -> None:
    (stage,) = (scenario := make(tmp_path, base, pairs)).stages(scenario.baseline(), "full")
    for name, text in stage.files.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-S", *stage.command[1:]]
    bare = [word for word in command if word != "-P"]
    script = (tmp_path / "train_stsb.py").read_text().replace('sys.executable, "-P"', 'sys.executable, "-S", "-P"')
    (tmp_path / "train_stsb.py").write_text(script)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(bare, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "this environment lacks the package torch: task stsb needs torch and transformers in it\n"


def test_without_repeated_seeds_nothing_is_confirmed(tmp_path: Path, base: Path, pairs: Path) -> None:
    scenario = make(tmp_path, base, pairs, CONFIRM_SEEDS="0")
    assert scenario.stages(scenario.baseline(), "predict", "confirm") == []
    with pytest.raises(ScoreUnavailable, match="CONFIRM_SEEDS is 0"):
        score(scenario, tmp_path, "confirm")


def test_the_estimate_grows_with_the_work(tmp_path: Path, base: Path, pairs: Path) -> None:
    less, more = (make(tmp_path, base, pairs, NUM_TRAIN_EPOCHS=epochs).estimate() for epochs in ("1", "4"))
    assert less.seconds_per_loop < more.seconds_per_loop
    assert less.memory_mb == more.memory_mb > 0


def _with(stage: Stage, name: str, text: str) -> Stage:
    return replace(stage, files={**stage.files, name: text})


def _without_time(path: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "latency_ms"} for row in rows(path)]
