"""Two processes on CPU with gloo that share the model too: the same training as one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.launch import launch
from ftagent.toolkit.processes import join_processes

from .rows import conversations
from .test_train_processes import near
from .training import HELD, command_of, config, losses, metrics, run, weights

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


def described(folder: Path) -> list[dict[str, Any]]:
    """What is said of the weights; names of modules have no order."""
    found = [folder / name for name in ("config.json", "adapter_config.json") if (folder / name).is_file()]
    assert found
    values = [json.loads(path.read_text()) for path in found]
    return [{**value, "target_modules": sorted(value.get("target_modules", []))} for value in values]


@pytest.mark.parametrize(
    "values",
    [
        {"method": "lora"},
        {"method": "lora", "dtype": "bfloat16"},
        {"method": "dora", "layers": 2, "gradient_checkpointing": True},
        {"method": "full", "max_grad_norm": 0},
        {"method": "full", "gradient_checkpointing": True, "pack_tokens": 40},
    ],
    ids=["lora", "lora in bfloat16", "dora", "full", "full in small packs"],
)
def test_two_shards_train_as_one_process_does(tiny: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    # Three rows a step: one process has two of them, and at the end of the epoch a process has none.
    conversations(tmp_path / "data.jsonl", 13)
    # With this epsilon a step depends on how large a gradient is: a mean in place of a sum would show.
    common = {"batch_size": 3, "learning_rate": 1e-2, "adam_epsilon": 0.1}
    values = {**common, "validation_share": 0.25, "validation_steps": 2, **values}
    one = run(config(tiny, tmp_path, save_model_path=str(tmp_path / "one"), **values))
    lines: list[dict[str, Any]] = []
    launch(config(tiny, tmp_path, strategy="fsdp", **values), 2, False, lines.append)
    tolerance = 2e-2 if values.get("dtype") == "bfloat16" else 1e-4
    assert losses(lines) == pytest.approx(losses(one), rel=tolerance)
    name = "model.safetensors" if values["method"] == "full" else "adapter_model.safetensors"
    if tolerance < 1e-3:
        near(tmp_path / "one", tmp_path / "out", name)
    first, second = (
        [line["validation_loss"] for line in metrics(tmp_path / folder) if "validation_loss" in line]
        for folder in ("one", "out")
    )
    assert second == pytest.approx(first, rel=tolerance)
    assert described(tmp_path / "out") == described(tmp_path / "one")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_killed_training_goes_on_in_shards_or_in_one_process(tiny: Path, tmp_path: Path, method: str) -> None:
    conversations(tmp_path / "data.jsonl", 16)
    values = {"method": method, "epochs": 4, "checkpoint_steps": 2, "learning_rate": 1e-3}
    one = run(config(tiny, tmp_path, save_model_path=str(tmp_path / "one"), **values))
    wanted = config(tiny, tmp_path, strategy="fsdp", **values)
    for step in (5, 9):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [*torchrun, *command_of(wanted, tmp_path)[1:]]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ,
            start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line).get("step") == step:
                    os.killpg(process.pid, signal.SIGKILL)
                    break
    lines = run(config(tiny, tmp_path, **values))
    assert lines[1]["event"] == "resumed"
    assert lines[1]["step"] >= 8
    assert losses(metrics(tmp_path / "out")) == pytest.approx(losses(one), rel=1e-3)
    near(tmp_path / "one", tmp_path / "out", "model.safetensors" if method == "full" else "adapter_model.safetensors")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_accelerate_starts_it_too(tiny: Path, tmp_path: Path, strategy: str) -> None:
    one = run(config(tiny, tmp_path, save_model_path=str(tmp_path / "one")))
    command = command_of(config(tiny, tmp_path), tmp_path)
    accelerate = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    options = ["-o", f"strategy={strategy}"]
    done = subprocess.run(
        [command[0], *accelerate, *command[1:], *options], check=True, env=os.environ, stdout=subprocess.PIPE, text=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(losses(lines)) > 2
    assert losses(lines) == pytest.approx(losses(one), rel=1e-4)


def test_each_process_holds_its_part_alone(tiny: Path, tmp_path: Path) -> None:
    command_of(config(tiny, tmp_path, strategy="fsdp"), tmp_path)
    script = tmp_path / "held.py"
    script.write_text(HELD)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, str(script), str(tmp_path / "train.yaml")], check=True, env=os.environ)
    (first, _, whole), (second, _, _) = (json.loads((tmp_path / f"train.yaml{rank}").read_text()) for rank in range(2))
    assert first + second == whole
    assert first == pytest.approx(whole / 2, rel=0.01)


def test_the_best_step_is_found_again_in_shards(tiny: Path, tmp_path: Path) -> None:
    conversations(tmp_path / "data.jsonl", 16)
    values = {
        "method": "full", "learning_rate": 1.0, "schedule": "constant", "validation_share": 0.25, "validation_steps": 1,
        "adam_epsilon": 0.1,
    }  # fmt: skip
    launch(config(tiny, tmp_path, strategy="fsdp", **values), 2, False, lambda record: None)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["best_step"] < summary["steps"]
    best = tmp_path / "out" / "checkpoints" / f"step-{summary['best_step']:08d}"
    expected, found = (weights(folder, "model.safetensors") for folder in (best, tmp_path / "out"))
    assert expected.keys() == found.keys()
    assert all(tensor.equal(expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed-zero2", "deepspeed-zero3"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "qlora"}, " does not split 4-bit weights: give method lora, or strategy ddp"),
        ({"dtype": "float16"}, " computes in float32 or bfloat16, not in float16"),
        ({"objective": "dpo"}, " trains objective sft alone; objective dpo takes strategy ddp"),
    ],
)
def test_what_cannot_be_split_is_refused(
    tiny: Path, tmp_path: Path, values: dict[str, Any], message: str, strategy: str
) -> None:
    with pytest.raises(ToolkitError) as error:
        config(tiny, tmp_path, strategy=strategy, **values)
    assert f"strategy {strategy}{message}" in str(error.value)


def test_accelerate_must_not_split_the_model_itself(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ToolkitError, match=r"^accelerate: leave --use_deepspeed out; `strategy: deepspeed-zero3` "):
        join_processes(config(tiny, tmp_path))
