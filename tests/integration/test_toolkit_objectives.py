"""A few steps of DPO and GRPO on the real small model; tests/acceptance has the proofs at length."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftagent_llm.models import resolve_model

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
ADAPTER = {"rank": 8, "layers": 4, "dtype": "float32", "device": "cpu", "learning_rate": 1e-3, "warmup_ratio": 0.0}


@pytest.fixture(scope="session")
def model(pytestconfig: pytest.Config) -> Path:
    cache = pytestconfig.cache
    assert cache is not None
    return resolve_model("smollm2-135m", cache.mkdir("ftagent_files")).path


def train(values: dict[str, Any], rows: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    data, output, path = folder / "rows.jsonl", folder / "tuned", folder / "train.yaml"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.write_text(json.dumps({**ADAPTER, **values, "dataset_path": str(data), "save_model_path": str(output)}))
    command = [sys.executable, "-m", "ftagent.toolkit.train", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (output / "adapter_model.safetensors").is_file()
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_dpo_prefers_the_chosen_replies(model: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"What is {n} + {n}?", "chosen": f"{2 * n}", "rejected": f"I think that it is {2 * n + 1}."}
        for n in range(1, 5)
    ]
    steps = train({"model_path": str(model), "objective": "dpo", "batch_size": 4, "epochs": 3}, rows, tmp_path)
    assert len(steps) == 3
    assert steps[0]["margin"] == pytest.approx(0.0, abs=1e-3)
    assert steps[-1]["margin"] > 0.1
    assert steps[-1]["loss"] < 0.65


def test_grpo_makes_rewarded_replies_likelier(model: Path, tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} + 3?", "answer": n + 3} for n in (2, 4)]
    values = {
        "model_path": str(model), "objective": "grpo", "verifier": "number", "batch_size": 2, "epochs": 1,
        "grpo_group_size": 4, "grpo_max_new_tokens": 8, "grpo_kl": 0.05, "grpo_updates": 3,
        "seed": 3,
    }  # fmt: skip
    steps = train(values, rows, tmp_path)
    assert len(steps) == 3
    assert steps[0]["no_signal"] == 0.0
    assert steps[0]["reward"] == 0.25
    # The same replies are used three times; the cost falls as those with an advantage become likelier.
    assert steps[0]["reward"] == steps[2]["reward"]
    assert steps[2]["loss"] < steps[0]["loss"] - 0.01
    assert steps[2]["kl"] > steps[0]["kl"]
