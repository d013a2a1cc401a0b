"""The llm scenario without a model that computes: options, files, stages, gate."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from ftagent.core.check import static_check
from ftagent.core.context import HubAccess, ScenarioContext
from ftagent.core.errors import RequestError, StageRefused
from ftagent.core.types import Candidate, Stage
from ftagent.environments.local import LocalEnvironment
from ftagent.toolkit.config import PredictConfig, TrainConfig, load_config
from ftagent_llm.options import LlmOptions
from ftagent_llm.scenario import LlmScenario

NAME = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that resolves as a base model of 30 layers."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 30}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1000, 1000], "data_offsets": [0, 4_000_000]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4_000_000))
    return folder


def make(tmp_path: Path, model: Path, options: dict[str, Any] | None = None, **context: Any) -> LlmScenario:
    values = {"benchmark": NAME, "base_model": str(model), "limit": 30, **context}
    return LlmScenario(
        LlmOptions(**{"train_rows": 200, **(options or {})}), ScenarioContext(files_path=tmp_path / "files", **values)
    )


def place(stage: Stage, candidate: Candidate, workspace: Path) -> None:
    workspace.mkdir(exist_ok=True)
    for name, text in {**candidate.files, **stage.files}.items():
        (workspace / name).write_text(text)


def execute(stage: Stage, candidate: Candidate, workspace: Path) -> None:
    place(stage, candidate, workspace)
    inputs = {f"FTAGENT_INPUT_{mount.name}": mount.source for mount in stage.mounts}
    environment = {**os.environ, **stage.variables, **inputs}
    subprocess.run([sys.executable, *stage.command[1:]], cwd=workspace, env=environment, check=True, timeout=60)


def corners(scenario: LlmScenario) -> list[dict[str, Any]]:
    """The defaults, and each end of each parameter beside them."""
    points: list[dict[str, Any]] = [{}]
    for parameter in scenario.space:
        ends = parameter.choices or (parameter.low, parameter.high)
        points += [{parameter.name: end} for end in ends]
    return points


def test_every_point_of_the_space_renders_valid_configs(tmp_path: Path, model: Path) -> None:
    scenario = make(tmp_path, model, {"methods": "lora,full"})
    for params in corners(scenario):
        candidate = Candidate(0, scenario.render(params), params)
        compile(candidate.files["prepare_data.py"], "prepare_data.py", "exec")
        stage = scenario.stages(candidate, "full")[1]
        place(stage, candidate, tmp_path / "space")
        config = load_config(tmp_path / "space" / "train_stage.yaml", TrainConfig)
        assert config.max_tokens == scenario.options.train_tokens
        assert config.epochs is None
        (predict,) = scenario.stages(candidate, "predict", "validation")
        place(predict, candidate, tmp_path / "space")
        predicting = load_config(tmp_path / "space" / "predict.yaml", PredictConfig)
        assert (predicting.adapter is None) == (config.method == "full")


@pytest.mark.parametrize("answer_format", ["plain", "sentence", "boxed", "marked", "restated", "worked"])
@pytest.mark.parametrize("difficulty", ["uniform", "hard"])
def test_prepared_answers_grade_as_right(tmp_path: Path, model: Path, answer_format: str, difficulty: str) -> None:
    scenario = make(tmp_path, model, {"train_rows": 120})
    params = {"answer_format": answer_format, "difficulty": difficulty, "data_size": 50}
    candidate = Candidate(0, scenario.render(params), params)
    stage = scenario.stages(candidate, "full")[0]
    execute(stage, candidate, tmp_path / "w")
    scenario.inspect(stage, tmp_path / "w")
    by_question = {row.question: row for row in scenario.data.rows}
    rows = [json.loads(line)["messages"] for line in (tmp_path / "w" / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 50
    for user, assistant in rows:
        row = by_question[user["content"]]
        item = next(iter(scenario.data.items("test")))
        meta = {**item.meta, "answer": row.answer}
        graded = scenario.benchmark.grade(type(item)(row.id, row.question, row.answer, meta), assistant["content"])
        assert graded.value == 1.0, assistant["content"]


def test_debug_is_cheap_for_templates_and_trains_for_other_files(tmp_path: Path, model: Path) -> None:
    scenario = make(tmp_path, model)
    candidate = Candidate(0, scenario.render({}), {})
    assert [stage.name for stage in scenario.stages(candidate, "debug")] == ["prepare_data"]
    changed = Candidate(0, {**candidate.files, "prepare_data.py": "print(1)\n"}, {})
    names = [stage.name for stage in scenario.stages(changed, "debug")]
    assert names == ["prepare_data", "train"]
    train = scenario.stages(changed, "debug")[1]
    assert yaml.safe_load(train.files["train_stage.yaml"])["max_tokens"] == 512
    assert "model" not in train.outputs


def test_fixed_keys_win_over_an_experiments_own(tmp_path: Path, model: Path) -> None:
    scenario = make(tmp_path, model)
    text = "method: lora\nmodel_path: /elsewhere\nmax_tokens: 99999999\nepochs: 4\nseed: 5\n"
    stage = scenario.stages(Candidate(0, {"train.yaml": text}), "full")[1]
    values = yaml.safe_load(stage.files["train_stage.yaml"])
    assert (values["model_path"], values["max_tokens"], values["seed"]) == (str(model), 50_000, 0)
    assert "epochs" not in values


def test_an_experiment_cannot_read_or_write_elsewhere(tmp_path: Path, model: Path) -> None:
    """Neither through keys of its own nor through a preset in its workspace."""
    scenario = make(tmp_path, model)
    keys = {
        "validation_path": "/etc/passwd", "report_to": "wandb", "keep_checkpoints": 9, "model_name": "own",
        "split": "test", "then": {"merge_path": "/tmp/merged"}, "map_function": "other", "objective": "dpo",
    }  # fmt: skip
    candidate = Candidate(0, {"train.yaml": yaml.safe_dump(keys), "train_args/own.yaml": "rank: 1\n"})
    honest, moved = (scenario.stages(one, "full")[1] for one in (Candidate(0, {"train.yaml": ""}), candidate))
    assert honest.files == moved.files
    (tmp_path / "train_args").mkdir()
    for name in ("own", "default"):
        (tmp_path / f"train_args/{name}.yaml").write_text("rank: 1\nvalidation_path: /etc/passwd\n")
    (tmp_path / "train_stage.yaml").write_text(moved.files["train_stage.yaml"])
    config = load_config(tmp_path / "train_stage.yaml", TrainConfig)
    assert (config.rank, config.validation_path, config.report_to) == (16, None, "none")
    told = {line.split(":")[0] for line in scenario.brief().details.splitlines() if line.startswith("- ")}
    assert {"- rank", "- thinking", "- gradient_checkpointing"} <= told
    assert not {f"- {key}" for key in keys} & told


def test_the_baseline_predicts_with_the_same_decoding_and_never_trains(tmp_path: Path, model: Path) -> None:
    scenario = make(tmp_path, model)
    assert scenario.stages(scenario.baseline(), "full") == []
    (base,) = scenario.stages(scenario.baseline(), "predict", "test")
    (tuned,) = scenario.stages(Candidate(0, scenario.render({})), "predict", "test")
    one, other = (yaml.safe_load(stage.files["predict.yaml"]) for stage in (base, tuned))
    assert other.pop("adapter") == "model"
    assert one == other
    assert base.files["questions.jsonl"] == tuned.files["questions.jsonl"]


def test_no_answer_enters_a_workspace(tmp_path: Path, model: Path) -> None:
    scenario = make(tmp_path, model)
    for split in ("validation", "confirm", "test"):
        (stage,) = scenario.stages(scenario.baseline(), "predict", split)
        rows = [json.loads(line) for line in stage.files["questions.jsonl"].splitlines()]
        assert len(rows) == 30
        assert all(set(row) == {"id", "messages"} for row in rows)
        assert [row["messages"][0]["content"] for row in rows] == [i.question for i in scenario.data.items(split)]
    questions = {json.loads(line)["prompt"] for line in scenario.data.file.read_text().splitlines()}
    assert questions.isdisjoint(item.question for item in scenario.data.items("test"))


def test_the_gate_refuses_planted_items(tmp_path: Path, model: Path) -> None:
    scenario = make(tmp_path, model, {"train_rows": 60})
    candidate = Candidate(0, scenario.render({}))
    stage = scenario.stages(candidate, "full")[0]
    execute(stage, candidate, tmp_path / "w")
    stolen = scenario.data.items("test")[7]
    row = {"messages": [{"role": "user", "content": stolen.question}, {"role": "assistant", "content": "1"}]}
    with (tmp_path / "w" / "train.jsonl").open("a") as out:
        out.write(json.dumps(row) + "\n")
    with pytest.raises(StageRefused, match=r"1 rows are items .*line 61: duplicate key of item test-7"):
        scenario.inspect(stage, tmp_path / "w")


def test_the_same_request_mounts_the_same_file(tmp_path: Path, model: Path) -> None:
    one, other = make(tmp_path, model), make(tmp_path, model)
    assert one.data.file == other.data.file
    assert make(tmp_path, model, upper_data_size=40).data.file != one.data.file
    assert len(make(tmp_path, model, upper_data_size=40).data.rows) == 40


def test_errors_of_sealed_splits_are_not_told(tmp_path: Path, model: Path) -> None:
    scenario = make(tmp_path, model)
    path = tmp_path / "predictions.jsonl"
    for split, told in (("validation", True), ("confirm", False), ("test", False)):
        path.write_text("".join(json.dumps({"id": i.id, "outputs": ["-1"]}) + "\n" for i in scenario.data.items(split)))
        assert bool(asyncio.run(scenario.score(path, split)).errors) == told


def test_mistakes_of_validation_are_told_without_answers(tmp_path: Path, model: Path) -> None:
    scenario = make(tmp_path, model)
    path = tmp_path / "predictions.jsonl"
    items = scenario.data.items("validation")
    path.write_text(
        "".join(json.dumps({"id": i.id, "outputs": ["I guess " + "hm " * 300 + "-7777"]}) + "\n" for i in items)
    )
    told = asyncio.run(scenario.score(path, "validation")).mistakes
    assert len(told) == 5
    assert all(len(text) <= 300 and text.endswith('-7777"') and "I guess" in text for text in told)
    for split in ("confirm", "test"):
        path.write_text("".join(json.dumps({"id": i.id, "outputs": ["-1"]}) + "\n" for i in scenario.data.items(split)))
        assert asyncio.run(scenario.score(path, split)).mistakes == ()


def test_the_brief_tells_what_writing_files_takes(tmp_path: Path, model: Path) -> None:
    scenario = make(tmp_path, model, {"memory_mb": 700, "train_tokens": 1234}, benchmark=NAME)
    brief = scenario.brief()
    for words in (
        f"{scenario.benchmark.name}: 200 rows {{id, prompt, answer, solution}}",
        "solution is empty in all of them",
        "Decoding, for the baseline and all experiments alike: greedy, at most 64 new tokens",
        r"the last \boxed{…} counts",
        "trains on exactly 1234 tokens",
        "Memory of one command: 700 MiB",
        "- schedule: linear, cosine, constant (default linear); after the warm-up; to 0",
        "- learning_rate: number > 0 (default 0.001; with method full 3e-05)",
        '"id": "train-0"',
    ):
        assert words in brief.details, words
    fixed = ("model_path", "dataset_path", "save_model_path", "epochs", "max_tokens", "seed", "dtype")
    for key in fixed:
        assert f"- {key}:" not in brief.details
    shown = brief.details.partition("## Sample rows")[2]
    assert shown.count('"prompt"') == 3
    for split in ("validation", "confirm", "test"):
        assert not any(json.dumps(item.question)[1:-1] in brief.details for item in scenario.data.items(split))
    assert brief.required_files == ("prepare_data.py", "train.yaml")
    assert set(brief.prompts) == {"system", "propose", "code", "repair", "reflect"}


def test_rendered_files_pass_the_static_check(tmp_path: Path, model: Path) -> None:
    scenario = make(tmp_path, model, {"methods": "lora,full"})
    brief = scenario.brief()
    modules = asyncio.run(LocalEnvironment().modules())
    assert "json" in modules
    for params in corners(scenario):
        files = scenario.render(params)
        assert static_check(files, brief.required_files, modules, brief.reserved_files) is None, params


@pytest.mark.parametrize(
    "text", ["a: 2026-99-99\n", "- " * 5000, "[" * 300, "a: [1", "{[1]: 2}", "1", "a: !!python/name:os.system"]
)
def test_a_config_that_does_not_read_is_the_trainings_failure(tmp_path: Path, model: Path, text: str) -> None:
    scenario = make(tmp_path, model)
    candidate = Candidate(0, {**scenario.render({}), "train.yaml": text})
    assert scenario.stages(candidate, "full")[1].files["train_stage.yaml"] == text
    assert scenario.stages(candidate, "predict", "validation")


def test_estimates_grow_with_the_work(tmp_path: Path, model: Path) -> None:
    small = make(tmp_path, model).estimate()
    large = make(tmp_path, model, {"train_tokens": 10_000_000, "methods": "full"}).estimate()
    assert large.seconds_per_loop > small.seconds_per_loop
    assert large.memory_mb > small.memory_mb
    assert large.disk_mb > small.disk_mb


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"benchmark": "gsm9k"}, "did you mean 'gsm8k'"),
        ({"benchmark": ""}, "no benchmark given"),
        ({"base_model": ""}, "no base model given"),
        ({"base_model": "smollm3"}, "no such folder"),
        ({"datasets": ("nothing",)}, "unknown benchmark 'nothing'"),
    ],
)
def test_what_is_unknown_is_refused_at_once(tmp_path: Path, model: Path, context: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        make(tmp_path, model, **context)


def test_samples_need_a_temperature(tmp_path: Path, model: Path) -> None:
    with pytest.raises(RequestError, match="temperature above 0"):
        make(tmp_path, model, {"temperature": 0}, samples=4)
    assert make(tmp_path, model, samples=4).decoding.temperature > 0


def test_options_are_checked() -> None:
    assert LlmOptions(ranks="2, 4").ranks == (2, 4)
    for wrong in ({"methods": "qlora"}, {"ranks": ""}, {"learning_rate_low": 1.0}, {"tokens": 3}):
        with pytest.raises(ValidationError):
            LlmOptions(**wrong)


@pytest.mark.data
def test_gsm8k_rows_bring_solutions(tmp_path: Path, model: Path) -> None:
    hub = HubAccess(mirror=Path(os.environ["FTAGENT_DATA_MIRROR"]))
    scenario = make(tmp_path, model, {"train_rows": 100}, benchmark="gsm8k", hub=hub, limit=50)
    assert {parameter.name: parameter.default for parameter in scenario.space}["answer_format"] == "solution"
    candidate = Candidate(0, scenario.render({}))
    stage = scenario.stages(candidate, "full")[0]
    execute(stage, candidate, tmp_path / "w")
    scenario.inspect(stage, tmp_path / "w")
    rows = [json.loads(line)["messages"] for line in (tmp_path / "w" / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 100
    assert all("####" in row[1]["content"] and row[0]["content"].endswith("####.") for row in rows)
    assert len(scenario.data.items("validation")) == len(scenario.data.items("test")) == 50


@pytest.mark.data
def test_another_dataset_loses_its_benchmark_items(tmp_path: Path, model: Path) -> None:
    hub = HubAccess(mirror=Path(os.environ["FTAGENT_DATA_MIRROR"]))
    scenario = make(tmp_path, model, {"train_rows": 40}, datasets=("gsm8k", NAME), hub=hub)
    assert {row.id.split("-")[0] for row in scenario.data.rows} == {"train"}
    assert len(scenario.data.rows) == 40
    assert any(row.solution for row in scenario.data.rows)


def test_the_data_script_may_ask_models_where_the_run_has_them(tmp_path: Path, model: Path) -> None:
    cases: list[tuple[bool, dict[str, Any]]] = [(False, {}), (True, {}), (True, {"llm_data": "never"})]
    for has_models, options in cases:
        scenario = make(tmp_path, model, options, llm=has_models)
        may_ask = has_models and not options
        candidate = Candidate(0, {**scenario.render({}), "prepare_data.py": "print(1)\n"})
        for purpose in ("debug", "full"):
            stages = {stage.name: stage for stage in scenario.stages(candidate, purpose)}  # type: ignore[arg-type]
            assert {name for name, stage in stages.items() if stage.llm} == ({"prepare_data"} if may_ask else set())
            assert not any(stage.network for stage in stages.values())
        assert not any(stage.llm for stage in scenario.stages(candidate, "predict", "validation"))
        assert ("ask_many" in scenario.brief().details) == may_ask
