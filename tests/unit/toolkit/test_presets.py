"""Layers of a training's keys: default.yaml < preset < config.yaml < -o."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import pytest

from ftagent.toolkit.config import TrainConfig, load_config
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.presets import PACKAGED, Method, ObjectiveName, default_values, preset_names

ROOT = Path(__file__).parents[3]
TRAIN = "model_path: m\ndataset_path: d.jsonl\nsave_model_path: out\n"
SHIPPED = ["deepseek-r1-qwen-7b", "gemma-3", "gpt-oss", "qwen2_5-14b", "qwen2_5-7b", "qwen3-8b", "smollm2-135m"]


def load(folder: Path, text: str, *overrides: str) -> TrainConfig:
    (folder / "config.yaml").write_text(text)
    return load_config(folder / "config.yaml", TrainConfig, overrides)


def own_preset(folder: Path, name: str, text: str) -> None:
    (folder / "train_args").mkdir(exist_ok=True)
    (folder / f"train_args/{name}.yaml").write_text(text)


def test_each_layer_wins_over_the_one_below(tmp_path: Path) -> None:
    own_preset(tmp_path, "mine", "rank: 5\nalpha: 7\nlearning_rate: 0.5\n")
    text = TRAIN + "epochs: 1\nmodel_name: mine\nalpha: 8\nlearning_rate: 0.25\n"
    config = load(tmp_path, text, "learning_rate=1e-6", "then.limit=3")
    found = (config.batch_size, config.rank, config.alpha, config.learning_rate, config.then.limit)
    assert found == (default_values()["batch_size"], 5, 8, 1e-6, 3)


def test_every_key_has_its_default_in_the_file() -> None:
    given = {"model_path", "dataset_path", "save_model_path"}
    assert default_values().keys() - {"when"} == TrainConfig.model_fields.keys() - given
    # The schema carries none: a default in code would be hidden from who reads the file.
    assert not any("default" in field for field in TrainConfig.model_json_schema()["properties"].values())


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("objective", get_args(ObjectiveName))
def test_shipped_presets_hold_for_every_method_and_objective(tmp_path: Path, method: str, objective: str) -> None:
    assert preset_names() == SHIPPED
    for name in SHIPPED:
        text = f"dataset_path: d\nsave_model_path: o\nmodel_name: {name}\n"
        config = load(tmp_path, text, f"method={method}", f"objective={objective}", "verifier=x")
        assert config.model_path
        assert config.learning_rate < 1e-5 or objective == "sft" or method != "full"


def test_a_section_of_when_holds_for_its_method_and_objective_alone(tmp_path: Path) -> None:
    when = "when:\n  full: {rank: 2}\n  dpo: {rank: 3}\n  full dpo: {rank: 4}\n"
    own_preset(tmp_path, "mine", f"rank: 1\n{when}")
    ranks = [
        load(tmp_path, TRAIN + "epochs: 1\nmodel_name: mine\n", f"method={method}", f"objective={objective}").rank
        for method, objective in (("lora", "sft"), ("full", "sft"), ("lora", "dpo"), ("full", "dpo"))
    ]
    assert ranks == [1, 2, 3, 4]
    assert load(tmp_path, TRAIN + "epochs: 1\nmodel_name: mine\nrank: 9\nmethod: full\n").rank == 9


def test_a_users_file_is_found_before_a_shipped_one_but_is_no_default(tmp_path: Path) -> None:
    own_preset(tmp_path, "qwen3-8b", "rank: 3\nepochs: 5\n")
    own_preset(tmp_path, "default", "rank: 1\n")
    config = load(tmp_path, TRAIN + "model_name: qwen3-8b\n")
    assert (config.rank, config.epochs) == (3, 5)
    assert load(tmp_path, TRAIN + "epochs: 1\n").rank == default_values()["rank"]


def test_one_of_a_group_replaces_another_of_a_lower_layer(tmp_path: Path) -> None:
    own_preset(tmp_path, "mine", "epochs: 3\nvalidation_path: v.jsonl\n")
    config = load(tmp_path, TRAIN + "model_name: mine\nmax_tokens: 100\nvalidation_share: 0.5\n")
    assert (config.epochs, config.max_tokens) == (None, 100)
    assert (config.validation_path, config.validation_share) == (None, 0.5)


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("", ["rank=0"], "-o rank=0: rank: Input should be greater than or equal to 1, not 0"),
        ("", ["rnk=1"], "-o rnk=1: rnk: unknown key; did you mean 'rank'?"),
        ("", ["rank"], "-o rank: write -o key=value"),
        ("", ["rank=["], "-o rank=[: not a YAML value"),
        ("", ["then.bench=x"], "-o then.bench=x: then.bench: unknown key; did you mean 'benchmark'?"),
        ("", ["model_name=qwen"], "-o model_name=qwen: model_name: no preset 'qwen'; did you mean 'qwen"),
        ("model_name: qwen3-9b\n", [], "config.yaml:5: model_name: no preset 'qwen3-9b'; did you mean 'qwen3-8b'?"),
        ("model_name: default\n", [], "config.yaml:5: model_name: no preset 'default'"),
        ("model_name: ../mine\n", [], "config.yaml:5: model_name: no preset '../mine'"),
        ("model_name: [a]\n", [], "config.yaml:5: model_name: no preset ['a']"),
        ("model_name: mine\n", [], "train_args/mine.yaml:2: rank: Input should be greater than or equal to 1"),
        ("model_name: typo\n", [], "train_args/typo.yaml:2: when: full: rnk: unknown key; did you mean 'rank'?"),
        ("model_name: words\n", [], "train_args/words.yaml:2: when: 'ful': valid words are full, lora"),
        ("model_name: turns\n", [], "train_args/turns.yaml:2: when: full: objective: cannot depend on method"),
        ("model_name: nested\n", [], "train_args/nested.yaml:1: model_name: a preset cannot build on another"),
        ("model_name: section\nmethod: full\n", [], "train_args/section.yaml:3: rank: Input should be greater than"),
    ],
)
def test_what_is_wrong_names_its_source(tmp_path: Path, text: str, overrides: list[str], says: str) -> None:
    own_preset(tmp_path, "mine", "# mine\nrank: 0\n")
    own_preset(tmp_path, "typo", "when:\n  full: {rnk: 3}\n")
    own_preset(tmp_path, "words", "when:\n  ful: {rank: 3}\n")
    own_preset(tmp_path, "turns", "when:\n  full: {objective: dpo}\n")
    own_preset(tmp_path, "nested", "model_name: mine\n")
    own_preset(tmp_path, "section", "rank: 4\nwhen:\n  full: {rank: 0}\n")
    with pytest.raises(ToolkitError) as error:
        load(tmp_path, TRAIN + "epochs: 1\n" + text, *overrides)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_wheel_brings_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = {Path(name).name for name in wheel.namelist() if "/toolkit/train_args/" in name}
    presets = {f"{name}.yaml" for name in [*SHIPPED, "default"]}
    assert names == {path.name for path in PACKAGED.iterdir()}
    assert names == {*presets, "deepspeed-zero2.json", "deepspeed-zero3.json"}
