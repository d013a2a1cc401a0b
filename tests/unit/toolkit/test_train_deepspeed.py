"""Processes on CPU with gloo whose gradients, moments and weights DeepSpeed splits: the same training as one.

They run in an environment of their own, the one process in that of the tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engines import deepspeed_python
from ftagent.toolkit.config import TrainConfig, load_config
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.launch import launch
from ftagent.toolkit.presets import PACKAGED
from ftagent.toolkit.zero_settings import check_deepspeed, engine_settings, read_settings

from .rows import conversations
from .test_train_processes import near
from .test_train_sharded import described
from .training import HELD, command_of, config, losses, metrics, run, weights

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
STRATEGIES = ["deepspeed-zero2", "deepspeed-zero3"]


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """A file after which every parameter is split. By itself DeepSpeed leaves those of the tiny model whole."""
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"zero_optimization": {"stage3_param_persistence_threshold": 0}}))
    return str(path)


@pytest.fixture
def with_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(deepspeed_python()))


def torchrun(number: int, *words: str) -> list[str]:
    command = [str(deepspeed_python()), "-m", "torch.distributed.run", "--standalone"]
    return [*command, "--nproc-per-node", str(number), *words]


@pytest.mark.deepspeed
@pytest.mark.parametrize(
    ("strategy", "values"),
    [
        ("deepspeed-zero2", {"method": "lora"}),
        ("deepspeed-zero2", {"method": "full", "dtype": "bfloat16"}),
        ("deepspeed-zero3", {"method": "dora", "layers": 2, "gradient_checkpointing": True}),
        ("deepspeed-zero3", {"method": "full", "gradient_checkpointing": True, "pack_tokens": 40}),
    ],
    ids=["zero2 lora", "zero2 full in bfloat16", "zero3 dora", "zero3 full in small packs"],
)
def test_two_processes_train_as_one_does(
    tiny: Path, tmp_path: Path, settings: str, with_deepspeed: None, strategy: str, values: dict[str, Any]
) -> None:
    # Three rows a step: one process has two of them, and at the end of the epoch a process has none.
    conversations(tmp_path / "data.jsonl", 13)
    # With this epsilon a step depends on how large a gradient is: a mean in place of a sum would show.
    common = {"batch_size": 3, "learning_rate": 1e-2, "adam_epsilon": 0.1}
    values = {**common, "validation_share": 0.25, "validation_steps": 2, **values}
    one = run(config(tiny, tmp_path, save_model_path=str(tmp_path / "one"), **values))
    lines: list[dict[str, Any]] = []
    launch(config(tiny, tmp_path, strategy=strategy, deepspeed_config=settings, **values), 2, False, lines.append)
    tolerance = 2e-2 if values.get("dtype") == "bfloat16" else 1e-4
    assert losses(lines) == pytest.approx(losses(one), rel=tolerance)
    if tolerance < 1e-3:
        full = values["method"] == "full"
        near(tmp_path / "one", tmp_path / "out", "model.safetensors" if full else "adapter_model.safetensors")
    first, second = (
        [line["validation_loss"] for line in metrics(tmp_path / folder) if "validation_loss" in line]
        for folder in ("one", "out")
    )
    assert second == pytest.approx(first, rel=tolerance)
    assert described(tmp_path / "out") == described(tmp_path / "one")


@pytest.mark.deepspeed
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_killed_training_goes_on_in_another_number(tiny: Path, tmp_path: Path, settings: str, strategy: str) -> None:
    conversations(tmp_path / "data.jsonl", 16)
    values = {"method": "full", "epochs": 4, "checkpoint_steps": 2, "learning_rate": 1e-3}
    one = run(config(tiny, tmp_path, save_model_path=str(tmp_path / "one"), **values))
    wanted = config(tiny, tmp_path, strategy=strategy, deepspeed_config=settings, **values)
    # Of three processes the last one has less of a tensor than the others.
    for processes, step in ((2, 5), (3, 9)):
        command = torchrun(processes, *command_of(wanted, tmp_path)[1:])
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ,
            start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                # Of all processes: DeepSpeed says nothing there.
                if json.loads(line).get("step") == step and "loss" in json.loads(line):
                    os.killpg(process.pid, signal.SIGKILL)
                    break
    lines = run(config(tiny, tmp_path, **values))
    assert lines[1]["event"] == "resumed"
    assert lines[1]["step"] >= 8
    assert losses(metrics(tmp_path / "out")) == pytest.approx(losses(one), rel=1e-3)
    near(tmp_path / "one", tmp_path / "out", "model.safetensors")


@pytest.mark.deepspeed
def test_the_best_step_is_found_again(tiny: Path, tmp_path: Path, settings: str, with_deepspeed: None) -> None:
    conversations(tmp_path / "data.jsonl", 16)
    values = {
        "method": "full", "learning_rate": 1.0, "schedule": "constant", "validation_share": 0.25, "validation_steps": 1,
        "adam_epsilon": 0.1,
    }  # fmt: skip
    wanted = config(tiny, tmp_path, strategy="deepspeed-zero3", deepspeed_config=settings, **values)
    launch(wanted, 2, False, lambda record: None)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["best_step"] < summary["steps"]
    best = tmp_path / "out" / "checkpoints" / f"step-{summary['best_step']:08d}"
    expected, found = (weights(folder, "model.safetensors") for folder in (best, tmp_path / "out"))
    assert expected.keys() == found.keys()
    assert all(tensor.equal(expected[name]) for name, tensor in found.items())


@pytest.mark.deepspeed
def test_each_process_holds_its_part_alone(tiny: Path, tmp_path: Path, settings: str) -> None:
    command_of(config(tiny, tmp_path, strategy="deepspeed-zero3", deepspeed_config=settings), tmp_path)
    script = tmp_path / "held.py"
    script.write_text(HELD)
    subprocess.run(torchrun(2, str(script), str(tmp_path / "train.yaml")), check=True, env=os.environ)
    (first, there, whole), (second, _, _) = (
        json.loads((tmp_path / f"train.yaml{rank}").read_text()) for rank in range(2)
    )
    assert there == 0
    assert first + second == whole
    assert first == pytest.approx(whole / 2, rel=0.01)


@pytest.mark.deepspeed
def test_what_deepspeed_itself_refuses_is_one_line(tiny: Path, tmp_path: Path, with_deepspeed: None) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"zero_optimization": {"reduce_bucket_size": -1}}))
    wanted = config(tiny, tmp_path, strategy="deepspeed-zero2", deepspeed_config=str(path))
    with pytest.raises(ToolkitError, match=r"^deepspeed: reduce_bucket_size: Input .*, not -1$") as error:
        launch(wanted, 2, False, lambda record: None)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_without_the_package_it_is_one_line(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolkitError) as error:
        launch(config(tiny, tmp_path, strategy="deepspeed-zero2"), 2, False, lambda record: None)
    assert str(error.value) == (
        "strategy: deepspeed-zero2 needs the package deepspeed; run `pip install 'ftagent[deepspeed]'`"
    )
    assert error.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_one_process_has_nothing_to_split(tiny: Path, tmp_path: Path) -> None:
    one = run(config(tiny, tmp_path, save_model_path=str(tmp_path / "one")))
    assert losses(run(config(tiny, tmp_path, strategy="deepspeed-zero3"))) == losses(one)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_key_of_a_preset_may_be_given(tiny: Path, tmp_path: Path, strategy: str) -> None:
    preset = json.loads((PACKAGED / f"{strategy}.json").read_text())
    assert read_settings(config(tiny, tmp_path, strategy=strategy)) == preset["zero_optimization"]
    given = config(tiny, tmp_path, strategy=strategy, deepspeed_config=str(PACKAGED / f"{strategy}.json"))
    assert read_settings(given) == preset["zero_optimization"]


def test_a_file_wins_over_the_preset_and_what_others_fill_in_does_not(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    section = {"stage": 2, "reduce_bucket_size": 1000, "allgather_bucket_size": "auto"}
    others = {"train_batch_size": "auto", "bf16": {"enabled": "auto"}, "gradient_clipping": "auto"}
    path.write_text(json.dumps({"zero_optimization": section, **others}))
    wanted = config(tiny, tmp_path, strategy="deepspeed-zero2", deepspeed_config=str(path), max_grad_norm=0.5)
    told = engine_settings(wanted, autocast=False)
    assert told["zero_optimization"]["reduce_bucket_size"] == 1000
    assert told["zero_optimization"]["allgather_bucket_size"] > 1000
    assert told["gradient_clipping"] == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"not JSON: .*"),
        ("[]", r"must be an object with zero_optimization, not list"),
        ('{"zero_optimization": 3}', r"zero_optimization: must be an object, not int"),
        ('{"zero_optimization": {"stage": 3}}', r"zero_optimization.stage: strategy deepspeed-zero2 is 2, not 3"),
        (
            '{"zero_optimization": {"reduce_bucket": 1}}',
            r"zero_optimization.reduce_bucket: unknown key; did you mean .*",
        ),
        (
            '{"optimizer": {"type": "Adam"}}',
            r"optimizer: give the training's own keys instead: learning_rate, .*",
        ),
        ('{"gradient_clipping": 1.0}', r"gradient_clipping: give the training's own keys instead: max_grad_norm"),
        ('{"curriculum_learning": {}}', r"curriculum_learning: is not supported; zero_optimization is"),
        (
            '{"zero_optimization": {"offload_optimizer": {"device": "nvme"}}}',
            r"zero_optimization.offload_optimizer: device must be 'cpu' or 'none', not .*",
        ),
    ],
)
def test_a_file_that_cannot_be_followed_is_one_line(tiny: Path, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    wanted = config(tiny, tmp_path, strategy="deepspeed-zero2", deepspeed_config=str(path))
    with pytest.raises(ToolkitError, match=rf"^deepspeed_config: \S*settings.json: {message}$"):
        check_deepspeed(wanted, 1)


def test_a_file_that_is_not_there_is_one_line(tiny: Path, tmp_path: Path) -> None:
    wanted = config(tiny, tmp_path, strategy="deepspeed-zero3", deepspeed_config="absent.json")
    with pytest.raises(ToolkitError, match=r"^deepspeed_config: absent.json: cannot be read: No such file"):
        check_deepspeed(wanted, 1)


def test_a_file_without_the_strategy_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = "model_path: m\ndataset_path: d\nsave_model_path: o\nepochs: 1\ndeepspeed_config: x.json\n"
    path.write_text(text)
    with pytest.raises(ToolkitError, match="deepspeed_config needs strategy deepspeed-zero2 or deepspeed-zero3"):
        load_config(path, TrainConfig)
