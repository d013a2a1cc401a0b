"""The toolkit's train.yaml as a task: its space, its stages, and scores by group."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import RequestError, StageRefused, StoppedEarly
from ftagent.core.types import Candidate, Stage
from ftagent.toolkit.config import PredictConfig, TrainConfig, load_config
from ftagent_hpo.config import packaged_text, read_config
from ftagent_hpo.task import FIRST_SEED
from ftagent_hpo.toolkit_space import TrainSpace, llm_options, train_space
from ftagent_hpo.toolkit_task import ToolkitTask

NAME = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that resolves as a base model of 30 layers."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 30}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return folder


def task(folder: Path, model: Path, space: str = "", **options: str) -> ToolkitTask:
    documents = {"space.yaml": space} if space else {}
    context = ScenarioContext(folder / "files", benchmark=NAME, base_model=str(model), limit=6, seed=3,
                              space="space.yaml" if space else "", documents=documents)  # fmt: skip
    return ToolkitTask(read_config(packaged_text(), "hpo.yaml", {"train_rows": "100", **options}), context)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model: Path) -> ToolkitTask:
    """With the packaged space; nothing is written by it."""
    return task(tmp_path_factory.mktemp("made"), model)


def space_of(made: ToolkitTask, text: str | None, **options: str) -> TrainSpace:
    """As the task makes it, without its data."""
    own = [p for p in made.space if p.tunable and p.name != "weight_decay"]
    config = read_config(packaged_text(), "hpo.yaml", options)
    llm_options(config)
    return train_space(config, own, {"seed": 3}, "space.yaml", text)


def config_of(stage: Stage, folder: Path) -> TrainConfig:
    (folder / "train_stage.yaml").write_text(stage.files["train_stage.yaml"])
    return load_config(folder / "train_stage.yaml", TrainConfig)


def test_the_default_space_renders_trainings_that_the_toolkit_takes(tmp_path: Path, model: Path) -> None:
    made = task(tmp_path, model, train_tokens="999")
    assert " ".join(sorted(p.name for p in made.space if p.tunable)) == (
        "batch_size layers learning_rate max_length rank schedule warmup_ratio weight_decay"
    )
    for parameter in made.space:
        for value in parameter.choices or (parameter.low, parameter.default, parameter.high):
            typed = int(value) if parameter.kind == "int" else value
            candidate = Candidate(0, made.render({parameter.name: typed}))
            prepare, train = made.train(candidate, FIRST_SEED, made.seed, made.model_folder)
            config = config_of(train, tmp_path)
            assert (getattr(config, parameter.name), config.max_tokens, config.alpha) == (typed, 999, 2 * config.rank)
            assert json.loads(train.files["trial.json"])["refused"] == ""
            assert "prepare_data.py" in prepare.files


def test_a_repeated_training_has_its_seed_and_folder(tmp_path: Path, made: ToolkitTask) -> None:
    candidate = Candidate(None, made.render({}))  # the baseline is trained like any other
    (train,) = made.train(candidate, "seed1", 4, "confirm/seed1")
    config = config_of(train, tmp_path)
    assert (config.seed, str(config.save_model_path)) == (4, "confirm/seed1")
    assert json.loads(train.files["trial.json"])["stopping"] == ""
    (predict,) = made.predict(candidate, "validation", "seed1", 4, "confirm/seed1")
    (tmp_path / "predict.yaml").write_text(predict.files["predict.yaml"])
    predicting = load_config(tmp_path / "predict.yaml", PredictConfig)
    assert (predicting.model, predicting.adapter) == (str(made.llm.model.path), "confirm/seed1")
    ids = [json.loads(line)["id"] for line in predict.files["questions.jsonl"].splitlines()]
    assert len(ids) == 6
    assert all(name.startswith("seed1/") for name in ids)


def test_memory_is_met_by_fewer_tokens_in_a_forward_pass(tmp_path: Path, model: Path) -> None:
    made = task(tmp_path, model, pack_tokens="1024", memory_mb="700")
    train = made.train(Candidate(0, made.render({})), FIRST_SEED, 3, "model")[1]
    trial = json.loads(train.files["trial.json"])
    assert (trial["parameters"], trial["memory"], trial["memory_mb"]) == (
        {"pack_tokens": 1024},
        {"pack_tokens": [128]},
        700,
    )
    assert trial["fresh"] == []  # the toolkit goes on from its checkpoints and mends its own metrics.jsonl
    assert train.adapts


def test_a_space_of_ones_own(tmp_path: Path, model: Path) -> None:
    space = "parameters:\n  learning_rate: {type: float, range: [1e-4, 1e-2], scale: log, default: 1e-3}\n  rank: 4\n"
    made = task(tmp_path, model, space, learning_rate="2e-3", schedule="constant")
    tuned = [p for p in made.space if p.tunable]
    assert [(p.name, p.default) for p in tuned] == [("learning_rate", 2e-3)]
    config = config_of(made.train(Candidate(0, made.render({})), FIRST_SEED, 3, "model")[1], tmp_path)
    assert (config.learning_rate, config.rank, config.alpha, config.schedule) == (2e-3, 4, 8, "constant")


RATE = "  learning_rate: {type: float, range: [1e-4, 1e-2], default: 1e-3}\n"


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (RATE + "  ranks: 4\n", "space.yaml:3: parameters.ranks: unknown key; did you mean 'rank'?"),
        (RATE + "  seed: 4\n", "space.yaml:3: parameters.seed: unknown key"),
        (RATE + "  rank: 0\n", "space.yaml:3: parameters.rank: Input should be greater than or equal to 1, not 0"),
        (RATE.replace("1e-4", "-1"), "space.yaml:2: parameters.learning_rate: Input should be greater than 0"),
        ("  schedule: {type: choice, choices: [linear, step], default: linear}\n",
         "space.yaml:2: parameters.schedule: Input should be 'linear', 'cosine' or 'constant', not 'step'"),
        ("  rank: 4\n", "space.yaml:1: parameters: nothing to tune"),
        (RATE + "metric: accuracy\n", "space.yaml:3: metric: unknown key; valid: parameters"),
    ],
)  # fmt: skip
def test_a_key_that_train_yaml_does_not_take_is_one_line(made: ToolkitTask, space: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        space_of(made, f"parameters:\n{space}")
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rnk": "4"}, "-o rnk: no such key; did you mean rank?"),
        ({"rank": "400"}, "-o rank=400: 400 is outside its range 4 to 64"),
        ({"dropout": "2"}, "-o dropout=2: Input should be less than 1"),
        ({"train_tokens": "2"}, "-o train_tokens=2: input should be greater than or equal to 64"),
    ],
)
def test_a_wrong_option_is_one_line(made: ToolkitTask, options: dict[str, str], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        space_of(made, None, **options)
    assert str(caught.value).startswith(words)


def test_a_file_that_leaves_the_space_is_refused(made: ToolkitTask) -> None:
    candidate = Candidate(0, {"train.yaml": "learning_rate: 9\nmethod: lora\n"})
    train = made.train(candidate, FIRST_SEED, 3, "model")[1]
    assert json.loads(train.files["trial.json"])["refused"].startswith("train.yaml: learning_rate: 9 is outside")


def test_scores_of_groups_are_put_together(tmp_path: Path, made: ToolkitTask) -> None:
    items = made.llm.data.items("validation")
    rows = [
        {"id": f"{group}/{item.id}", "outputs": [item.answer if right else "no"]}
        for group, right in (("seed1", True), ("seed2", False))
        for item in items
    ]
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    score = made.score(path, "confirm", ["seed1", "seed2"])
    assert (score.value, score.n, score.errors, score.mistakes) == (0.5, 6, {}, ())
    assert {name.split("/")[0]: value for name, value in score.outcomes.items()} == {"seed1": 1.0, "seed2": 0.0}
    assert made.score(path, "validation", ["seed2"]).errors


def test_the_overlap_gate_and_early_stops_end_a_trial(tmp_path: Path, made: ToolkitTask) -> None:
    prepare, train = made.train(Candidate(0, made.render({})), FIRST_SEED, 3, "model")
    item: Any = made.llm.data.items("test")[0]
    row = {"messages": [{"role": "user", "content": item.question}, {"role": "assistant", "content": item.answer}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(StageRefused, match="1 rows are items of"):
        made.inspect(prepare, tmp_path)
    made.inspect(train, tmp_path)
    stopped = {"step": 4, "value": 2.5, "needs": 2, "metric": "loss", "direction": "minimize", "rule": "r"}
    (tmp_path / "stopped.json").write_text(json.dumps(stopped))
    with pytest.raises(StoppedEarly, match=r"^loss was 2.5 at step 4, at most 2 was needed to go on \(r\)$"):
        made.inspect(train, tmp_path)
    assert yaml.safe_load(train.files["train_stage.yaml"])["save_model_path"] == "model"
    assert made.live_metric == "-loss"
    made.inspect(replace(train, name="predict", command=("python",)), tmp_path)
