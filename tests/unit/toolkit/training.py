"""Trainings of the tiny model, as tests ask for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ftagent.toolkit.config import TrainConfig, validate_config
from ftagent.toolkit.train import train

from .rows import conversations


def config(tiny: Path, tmp_path: Path, **values: Any) -> TrainConfig:
    data = tmp_path / "data.jsonl"
    if not data.exists():
        conversations(data)
    base = {"model_path": str(tiny), "dataset_path": str(data), "save_model_path": str(tmp_path / "out")}
    base |= {"batch_size": 4, "rank": 4}
    base |= {"epochs": 2} if "max_tokens" not in values else {}
    return validate_config({**base, **values}, TrainConfig, "train.yaml")


def run(wanted: TrainConfig) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    train(wanted, lines.append)
    return lines


def losses(lines: list[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in lines if "loss" in line]


def weights(folder: Path, name: str = "adapter_model.safetensors") -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / name))


def same(first: Path, second: Path, name: str = "adapter_model.safetensors", rtol: float = 1e-4) -> None:
    """Assert that two folders hold the same weights but for rounding."""
    import torch

    expected, found = weights(first, name), weights(second, name)
    assert expected.keys() == found.keys()
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, expected[key], rtol=rtol, atol=1e-6)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def command_of(wanted: TrainConfig, tmp_path: Path) -> list[str]:
    path = tmp_path / "train.yaml"
    path.write_text(json.dumps(wanted.model_dump(mode="json", exclude_none=True)))
    return [sys.executable, "-m", "ftagent.toolkit.train", str(path)]


def killed_after(wanted: TrainConfig, step: int, tmp_path: Path) -> None:
    """Start the command, kill -9 once it printed `step`."""
    signalled_after(wanted, step, tmp_path, signal.SIGKILL)


def signalled_after(wanted: TrainConfig, step: int, tmp_path: Path, number: signal.Signals) -> tuple[int, str]:
    """Start the command, send it a signal once it printed `step`; returns its exit code and stderr."""
    command = command_of(wanted, tmp_path)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if json.loads(line).get("step") == step:
                process.send_signal(number)
                break
        process.stdout.read()
        errors = process.stderr.read()
    if number is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    return process.returncode, errors


HELD = """
import json, os, sys
from pathlib import Path
from ftagent.toolkit.config import TrainConfig, load_config
from ftagent.toolkit.learner import load_learner
from ftagent.toolkit.processes import join_processes, leave_processes
config = load_config(Path(sys.argv[1]), TrainConfig)
share = join_processes(config)
learner = load_learner(config, share)
learner.prepare(config)
whole = sum(parameter.numel() for parameter in learner.inner.parameters())
learner.shard(config)
parts = [getattr(parameter, "ds_tensor", None) for parameter in learner.inner.parameters()]
if any(part is None for part in parts):
    parts = [parameter.to_local() for parameter in learner.inner.parameters()]
part = sum(tensor.numel() for tensor in parts)
there = sum(parameter.numel() for parameter in learner.inner.parameters())
Path(sys.argv[1] + os.environ["RANK"]).write_text(json.dumps([part, there, whole]))
leave_processes()
"""
"""What a process of a split model holds: writes [its part, what modules show, the whole] beside the configuration."""
