"""DPO and GRPO on the real small model: sums of two one-digit numbers, judged by reasoning-gym's own rule.

The questions of training and of the measurement before and after share no sum in any order (see
ftagent.evaluation.procedural).
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ftagent.evaluation.benchmark import Item
from ftagent.evaluation.procedural import ProceduralBenchmark
from ftagent_llm.models import resolve_model

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(7200),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
RESULTS = Path(__file__).parent.parent.parent / "docs" / "acceptance"
SUMS = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1"
ADAPTER = {"method": "lora", "rank": 16, "alpha": 32, "layers": 12, "dtype": "float32", "device": "cpu", "seed": 1}
GRPO = {
    **ADAPTER, "objective": "grpo", "verifier": SUMS, "learning_rate": 5e-4, "batch_size": 8, "grpo_group_size": 8,
    "grpo_max_new_tokens": 16, "grpo_kl": 0.0,
}  # fmt: skip
DPO = {**ADAPTER, "objective": "dpo", "learning_rate": 5e-4, "batch_size": 8, "epochs": 2, "dpo_beta": 0.1}


@pytest.fixture(scope="session")
def model(pytestconfig: pytest.Config) -> Path:
    cache = pytestconfig.cache
    assert cache is not None
    return resolve_model("smollm2-135m", cache.mkdir("ftagent_files")).path


def run_toolkit(command: str, values: dict[str, Any], folder: Path) -> None:
    """`python -m ftagent.toolkit.COMMAND` with `values` as its YAML (JSON is YAML)."""
    path = folder / f"{command}.yaml"
    path.write_text(json.dumps(values))
    arguments = [sys.executable, "-m", f"ftagent.toolkit.{command}", str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr


def write(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def replies(
    model: Path, items: Sequence[Item], folder: Path, samples: int, limit: int, adapter: Path | None = None
) -> dict[str, list[str]]:
    """Of each item's id, `samples` replies at temperature 1, or one greedy reply."""
    rows = [{"id": item.id, "messages": [{"role": "user", "content": item.question}]} for item in items]
    values = {
        "model": str(model), "questions": write(folder / "questions.jsonl", rows), "max_new_tokens": limit,
        "output": str(folder / "outputs.jsonl"), "samples": samples, "temperature": float(samples > 1), "seed": 7,
    }  # fmt: skip
    run_toolkit("predict", values | ({"adapter": str(adapter)} if adapter else {}), folder)
    lines = map(json.loads, (folder / "outputs.jsonl").read_text().splitlines())
    return {line["id"]: line["outputs"] for line in lines}


def measured(
    task: ProceduralBenchmark, model: Path, items: Sequence[Item], folder: Path, adapter: Path | None = None
) -> dict[str, float]:
    """Share of right replies to items that were not trained on: greedy, and of 4 samples each."""
    found = {"items": float(len(items))}
    for name, samples in (("greedy", 1), ("sampled", 4)):
        outputs = replies(model, items, folder, samples, 16, adapter)
        found[name] = statistics.fmean(task.grade(item, text).value for item in items for text in outputs[item.id])
    return found


def keep(name: str, config: dict[str, Any], record: dict[str, Any]) -> None:
    machine = {
        "cores": len(os.sched_getaffinity(0)), "system": platform.system(), "python": platform.python_version(),
    }  # fmt: skip
    config = {key: value for key, value in config.items() if not key.endswith("_path")}
    document = {"model": "smollm2-135m", "benchmark": SUMS, "config": config, "machine": machine, **record}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_grpo_raises_the_reward(model: Path, tmp_path: Path) -> None:
    task = ProceduralBenchmark(SUMS)
    entries = task.draw("train", 256)
    rows = [
        {"prompt": entry["question"], "answer": entry["answer"], "metadata": entry["metadata"]} for entry in entries
    ]
    items = [*task.items("validation", 30), *task.items("test", 30)]
    before = measured(task, model, items, tmp_path)
    config = {
        **GRPO, "model_path": str(model), "dataset_path": write(tmp_path / "problems.jsonl", rows),
        "save_model_path": str(tmp_path / "tuned"), "epochs": 8 * 32 / len(rows),
    }  # fmt: skip
    run_toolkit("train", config, tmp_path)
    after = measured(task, model, items, tmp_path, tmp_path / "tuned")
    steps = metrics(tmp_path / "tuned")
    rewards = [step["reward"] for step in steps]
    first, last = statistics.fmean(rewards[:8]), statistics.fmean(rewards[-8:])
    record = {
        "problems": len(rows), "seconds": steps[-1]["seconds"], "first_8_steps": first, "last_8_steps": last,
        "held_out": {"before": before, "after": after}, "steps": steps,
    }  # fmt: skip
    keep("grpo", config, record)
    assert len(steps) == 32
    assert last > first + 0.1
    assert after["sampled"] > before["sampled"] + 0.1


def pairs_of(task: ProceduralBenchmark, items: Sequence[Item], outputs: dict[str, list[str]]) -> list[dict[str, str]]:
    """Of the model's own replies to an item, at most four right ones, each with a wrong one."""
    pairs = []
    for item in items:
        right = [text for text in outputs[item.id] if task.grade(item, text).value == 1.0]
        wrong = [text for text in outputs[item.id] if text.strip() and text not in right]
        pairs += [
            {"prompt": item.question, "chosen": one, "rejected": other}
            for one, other in list(zip(right, wrong, strict=False))[:4]
        ]
    return pairs


def margins(config: dict[str, Any], adapter: Path | None) -> dict[str, float]:
    """What the objective measures on the held-out pairs, with the adapter or without."""
    from peft import PeftModel

    from ftagent.toolkit.config import TrainConfig, validate_config
    from ftagent.toolkit.models import load_model
    from ftagent.toolkit.objectives.build import prepare_objective, read_rows
    from ftagent.toolkit.objectives.dpo import PreferenceObjective

    wanted = validate_config(config, TrainConfig, "config")
    base, tokenizer = load_model(wanted.model_path, "float32", "cpu")
    prepared = prepare_objective(base, tokenizer, wanted, read_rows(wanted))
    assert isinstance(prepared.objective, PreferenceObjective)
    pairs = [pair for batch in prepared.held_out for pair in batch]
    if adapter:
        base = PeftModel.from_pretrained(base, str(adapter)).get_base_model()
    return {"pairs": float(len(pairs)), **prepared.objective.measure(base, pairs)}


def test_dpo_raises_the_margin(model: Path, tmp_path: Path) -> None:
    task = ProceduralBenchmark(SUMS)
    drawn = [Item(f"train-{n}", entry["question"], entry["answer"], entry)
             for n, entry in enumerate(task.draw("train", 80))]  # fmt: skip
    items = [*task.items("validation", 30), *task.items("test", 30)]
    trained = pairs_of(task, drawn, replies(model, drawn, tmp_path, 16, 16))
    held_out = pairs_of(task, items, replies(model, items, tmp_path, 8, 16))
    config = {
        **DPO, "model_path": str(model), "dataset_path": write(tmp_path / "pairs.jsonl", trained),
        "validation_path": write(tmp_path / "held_out.jsonl", held_out), "save_model_path": str(tmp_path / "tuned"),
    }  # fmt: skip
    before, answers_before = margins(config, None), measured(task, model, items, tmp_path)
    run_toolkit("train", config, tmp_path)
    after = margins(config, tmp_path / "tuned")
    answers_after = measured(task, model, items, tmp_path, tmp_path / "tuned")
    steps = metrics(tmp_path / "tuned")
    record = {
        "pairs": len(trained), "seconds": steps[-1]["seconds"], "held_out_pairs": {"before": before, "after": after},
        "held_out_answers": {"before": answers_before, "after": answers_after}, "steps": steps,
    }  # fmt: skip
    keep("dpo", config, record)
    assert abs(before["margin"]) < 1e-3
    assert after["margin"] > 0.1
    assert after["accuracy"] > 0.5
    assert after["loss"] < before["loss"]
