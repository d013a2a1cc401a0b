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

from ftagent.toolkit.launch import launch

from .rows import conversations
from .test_train_processes import near
from .training import command_of, config, losses, metrics, run

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
