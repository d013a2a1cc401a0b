"""Two processes on CPU with gloo: the same training as one."""

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

from .rows import conversations, preferences, write
from .training import command_of, config, losses, metrics, run, weights

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


def near(first: Path, second: Path, name: str = "adapter_model.safetensors") -> None:
    """Sums in another order, and Adam, which turns a tiny gradient's rounding into a step of the rate's size."""
    import torch

    expected, found = weights(first, name), weights(second, name)
    assert expected.keys() == found.keys()
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-3, atol=3e-4)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_train_as_one_does(tiny: Path, tmp_path: Path, method: str) -> None:
    # Three rows a step: one process has two of them, and at the end of the epoch a process has none.
    conversations(tmp_path / "data.jsonl", 13)
    values = {"method": method, "batch_size": 3, "learning_rate": 1e-3, "validation_share": 0.25, "validation_steps": 2}
    one = run(config(tiny, tmp_path, save_model_path=str(tmp_path / "one"), **values))
    lines: list[dict[str, Any]] = []
    launch(config(tiny, tmp_path, **values), 2, False, lines.append)
    assert losses(lines) == pytest.approx(losses(one), rel=1e-4)
    near(tmp_path / "one", tmp_path / "out", "adapter_model.safetensors" if method == "lora" else "model.safetensors")
    first, second = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "out"))
    assert {**first, "seconds": 0} == {
        **second, "seconds": 0, "validation_loss": pytest.approx(second["validation_loss"], rel=1e-4),
    }  # fmt: skip
    assert len(metrics(tmp_path / "out")) == len(metrics(tmp_path / "one"))


def test_two_processes_share_pairs(tiny: Path, tmp_path: Path) -> None:
    keys = ("prompt", "chosen", "rejected")
    write(tmp_path / "pairs.jsonl", [{key: getattr(pair, key) for key in keys} for pair in preferences(5)])
    values = {"dataset_path": str(tmp_path / "pairs.jsonl"), "objective": "dpo", "batch_size": 3, "learning_rate": 1e-3}
    one = run(config(tiny, tmp_path, save_model_path=str(tmp_path / "one"), **values))
    lines: list[dict[str, Any]] = []
    launch(config(tiny, tmp_path, **values), 2, False, lines.append)
    for name in ("loss", "margin", "accuracy"):
        first, second = ([line[name] for line in some if name in line] for some in (one, lines))
        assert second == pytest.approx(first, rel=1e-3, abs=1e-4)
        assert len(second) == 4
    near(tmp_path / "one", tmp_path / "out")


def test_torchrun_starts_it_too_and_a_kill_is_gone_on_from(tiny: Path, tmp_path: Path) -> None:
    conversations(tmp_path / "data.jsonl", 24)
    values = {"epochs": 10, "checkpoint_steps": 2, "learning_rate": 1e-3}
    one = run(config(tiny, tmp_path, save_model_path=str(tmp_path / "one"), **values))
    wanted = config(tiny, tmp_path, **values)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, *command_of(wanted, tmp_path)[1:]]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=os.environ, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line).get("step") == 5:
                os.killpg(process.pid, signal.SIGKILL)
                break
    lines: list[dict[str, Any]] = []
    launch(wanted, 2, False, lines.append)
    assert lines[1]["event"] == "resumed"
    assert lines[1]["step"] >= 4
    assert losses(metrics(tmp_path / "out")) == pytest.approx(losses(one), rel=1e-3)


def test_what_is_wrong_is_told_once(tiny: Path, tmp_path: Path) -> None:
    write(tmp_path / "bad.jsonl", [{"messages": [{"role": "user", "content": "x"}]}])
    wanted = config(tiny, tmp_path, dataset_path=str(tmp_path / "bad.jsonl"))
    with pytest.raises(ToolkitError, match=r"^\S*bad\.jsonl:1: ") as error:
        launch(wanted, 2, False, lambda record: None)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
