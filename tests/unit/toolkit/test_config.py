from pathlib import Path

import pytest

from ftagent.toolkit.config import PredictConfig, TrainConfig, load_config
from ftagent.toolkit.errors import ToolkitError

TRAIN = "model_path: m\ndataset_path: d.jsonl\nsave_model_path: out\n"


def train(tmp_path: Path, text: str) -> TrainConfig:
    path = tmp_path / "train.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, TrainConfig)


def test_a_complete_file_is_read(tmp_path: Path) -> None:
    config = train(tmp_path, TRAIN + "max_tokens: 5000\nlearning_rate: 1e-3\ntarget_modules: [q_proj]\n")
    assert (config.max_tokens, config.learning_rate, config.target_modules) == (5000, 0.001, ["q_proj"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TRAIN + "epochs: 1\nlearning_rat: 1\n", ":5: learning_rat: unknown key; did you mean 'learning_rate'?"),
        (TRAIN + "epochs: 1\nzzz: 1\n", ":5: zzz: unknown key; valid keys: adam_beta1, "),
        (TRAIN, "give exactly one of epochs and max_tokens"),
        (TRAIN + "epochs: 1\nmax_tokens: 1\n", "give exactly one of epochs and max_tokens"),
        (TRAIN + "epochs: 1\nrank: 0\n", ":5: rank: Input should be greater than or equal to 1, not 0"),
        (TRAIN + "epochs: 1\nschedule: square\n", ":5: schedule: Input should be 'linear', 'cosine' or 'constant'"),
        ("model_path: m\nsave_model_path: out\nepochs: 1\n", "dataset_path: is missing"),
        ("- a\n", "must be a mapping of keys to values, not list"),
        ("", "must be a mapping of keys to values, not nothing"),
        ("a: [\n", ":2:1: not YAML: while parsing a flow node"),
        (TRAIN + "epochs: 1\nrank: 4\nrank: 8\n", ":6: rank: stands twice, first in line 5"),
        (TRAIN + "epochs: .nan\n", ":4: epochs: Input should be a finite number"),
        (TRAIN + "epochs: 1\nthen:\n  bench: gsm8k\n", ":6: then.bench: unknown key; did you mean 'benchmark'?"),
        (TRAIN + "epochs: 1\ntarget_modules: [1]\n", ":5: target_modules"),
        (TRAIN + "epochs: 1\nwhen: {full: {rank: 3}}\n", ":5: when: unknown key"),
        (TRAIN + "epochs: 1\nobjective: grpo\n", "objective grpo needs a verifier"),
        (TRAIN + "epochs: 1\nearly_stopping_patience: 2\n", "early_stopping_patience needs held-out rows"),
        (
            TRAIN + "epochs: 1\nvalidation_path: v\nvalidation_share: 0.1\n",
            "give at most one of validation_path, validation_split and validation_share",
        ),
    ],
)
def test_a_wrong_file_is_one_line_that_says_where(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ToolkitError) as error:
        train(tmp_path, text)
    assert says in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "train.yaml"))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"none\.yaml: cannot be read"):
        load_config(tmp_path / "none.yaml", PredictConfig)


def test_several_greedy_samples_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "predict.yaml"
    path.write_text("model: m\nquestions: q\noutput: o\nsamples: 2\n", encoding="utf-8")
    with pytest.raises(ToolkitError, match="samples above 1 need a temperature above 0"):
        load_config(path, PredictConfig)
