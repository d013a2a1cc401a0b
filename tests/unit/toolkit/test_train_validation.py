"""Validation, the best checkpoint, early stopping, and which checkpoints stay."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.checkpoint import TENSORS
from ftagent.toolkit.data import read_conversations
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.objectives.build import read_rows
from ftagent.toolkit.train import train

from .rows import conversations, write
from .training import config, killed_after, losses, metrics, run, same, signalled_after

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
# At this rate the tiny model learns for a few steps and then only damages itself.
TOO_FAST = {"epochs": 8, "learning_rate": 0.5, "schedule": "constant", "validation_share": 0.34, "validation_steps": 2}


def folders(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))


def independent_loss(model_path: Path, adapter: Path | None, rows: Path) -> float:
    """Mean nats per label token, one row at a time through transformers and PEFT."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ftagent.toolkit.mapping import Mapper
    from ftagent.toolkit.tokens import IGNORED, stop_tokens

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model: Any = AutoModelForCausalLM.from_pretrained(model_path)
    stops = stop_tokens(tokenizer, model)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    total, count = 0.0, 0
    for conversation in read_conversations(rows):
        (row,) = Mapper(tokenizer, stops=stops).conversation(conversation, 1024, "rows")
        labels = torch.tensor([row.labels])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([row.ids]), labels=labels).loss.item()
        learnt = sum(label != IGNORED for label in row.labels[1:])
        total, count = total + loss * learnt, count + learnt
    return total / count


def test_the_result_is_the_best_step_and_says_so(tiny: Path, tmp_path: Path) -> None:
    pairs = [("Name a colour.", "blue"), ("Name a tree.", "an oak"), ("Say yes.", "yes")]
    held_out = write(
        tmp_path / "held_out.jsonl",
        [{"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]} for a, b in pairs],
    )
    values = {**TOO_FAST, "validation_share": 0.0, "validation_path": str(held_out), "keep_checkpoints": 2}
    lines = run(config(tiny, tmp_path, **values, checkpoint_steps=3))
    validations = {line["step"]: line["validation_loss"] for line in lines if "best" in line}
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    steps = summary["steps"]
    assert list(validations) == [*range(2, steps, 2), steps]
    best = min(validations, key=lambda step: validations[step])
    assert best < steps
    assert (summary["best_step"], summary["stopped_early"]) == (best, False)
    assert independent_loss(tiny, tmp_path / "out", held_out) == pytest.approx(validations[best], rel=1e-4)
    assert json.loads((tmp_path / "out/checkpoints/best.json").read_text()) == {
        "step": best, "metric": "validation_loss", "value": validations[best],
    }  # fmt: skip
    assert folders(tmp_path / "out") == sorted({best, steps - steps % 3 if steps % 3 else steps - 3, steps})
    written = [line for line in metrics(tmp_path / "out") if "validation_loss" in line]
    assert {line["step"]: line["validation_loss"] for line in written} == validations


def test_kept_checkpoints_load_as_adapters_and_tell_where_they_stand(tiny: Path, tmp_path: Path) -> None:
    wanted = config(tiny, tmp_path, epochs=3, checkpoint_steps=2, keep_checkpoints=2, validation_share=0.25)
    lines = run(wanted)
    rows = tmp_path / "data.jsonl"
    for step in folders(tmp_path / "out"):
        folder = tmp_path / "out/checkpoints" / f"step-{step:08d}"
        assert math.isfinite(independent_loss(tiny, folder, rows))
        progress = json.loads((folder / "progress.json").read_text())
        assert progress["step"] == step
        assert progress["loss"] == next(line["loss"] for line in lines if line.get("step") == step and "loss" in line)
    same(tmp_path / "out/checkpoints" / f"step-{max(folders(tmp_path / 'out')):08d}", tmp_path / "out")


def test_a_share_is_held_out_by_the_seed_and_never_trained_on(tiny: Path, tmp_path: Path) -> None:
    parts = []
    for seed in (0, 0, 1):
        rows = read_rows(config(tiny, tmp_path, validation_share=0.25, seed=seed))
        assert (len(rows.train), len(rows.held_out)) == (9, 3)
        lines = [[row.line for row in part] for part in (rows.train, rows.held_out)]
        assert sorted([*lines[0], *lines[1]]) == list(range(1, 13))
        parts.append(lines)
    assert parts[0] == parts[1] != parts[2]


def test_early_stopping_ends_after_patience_validations(tiny: Path, tmp_path: Path) -> None:
    wanted = config(tiny, tmp_path, **TOO_FAST, early_stopping_patience=2, checkpoint_steps=1, keep_checkpoints=1)
    lines = run(wanted)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    steps = [line["step"] for line in lines if "best" in line]
    assert summary["stopped_early"]
    assert summary["steps"] == steps[-1] == summary["best_step"] + 2 * 2
    assert summary["steps"] < lines[0]["steps"]
    assert summary["tokens"] == lines[-2]["tokens"]


def test_a_gain_below_min_delta_is_no_gain(tiny: Path, tmp_path: Path) -> None:
    values = {"epochs": 8, "learning_rate": 1e-6, "validation_share": 0.34, "validation_steps": 1}
    lines = run(config(tiny, tmp_path, **values, early_stopping_patience=3, early_stopping_min_delta=0.5))
    assert max(line["step"] for line in lines if "step" in line) == 4


@pytest.mark.parametrize("killed_at", [5, 9])
def test_a_killed_training_with_validation_ends_as_it_would_have(tiny: Path, tmp_path: Path, killed_at: int) -> None:
    values = {**TOO_FAST, "dropout": 0.1, "checkpoint_steps": 3, "early_stopping_patience": 4}
    whole = run(config(tiny, tmp_path, save_model_path=str(tmp_path / "whole"), **values))
    wanted = config(tiny, tmp_path, save_model_path=str(tmp_path / "killed"), **values)
    killed_after(wanted, killed_at, tmp_path)
    resumed = run(wanted)
    assert resumed[1]["event"] == "resumed"
    one, other = ({k: v for k, v in lines[-1].items() if k not in ("seconds", "output")} for lines in (whole, resumed))
    assert one == other | {"validation_loss": pytest.approx(other["validation_loss"], rel=1e-5)}
    same(tmp_path / "whole", tmp_path / "killed")
    first, second = metrics(tmp_path / "whole"), metrics(tmp_path / "killed")
    assert [line["step"] for line in first] == [line["step"] for line in second]
    assert losses(first) == pytest.approx(losses(second), rel=1e-4)
    assert folders(tmp_path / "whole") == folders(tmp_path / "killed")


def test_a_checkpoint_without_its_best_is_not_gone_on_from(tiny: Path, tmp_path: Path) -> None:
    values = {**TOO_FAST, "checkpoint_steps": 1, "keep_checkpoints": 20}
    lines = run(config(tiny, tmp_path, **values, save_model_path=str(tmp_path / "whole")))
    best, steps = lines[-1]["best_step"], lines[-1]["steps"]
    wanted = config(tiny, tmp_path, **values)
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    damaged = tmp_path / f"out/checkpoints/step-{best:08d}" / TENSORS
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (tmp_path / "out/complete.json").unlink()
    resumed = run(wanted)
    assert (resumed[1]["event"], resumed[1]["step"]) == ("resumed", best - 1)
    assert (resumed[-1]["best_step"], resumed[-1]["steps"]) == (best, steps)
    same(tmp_path / "whole", tmp_path / "out")


def test_a_fresh_start_forgets_what_was_there(tiny: Path, tmp_path: Path) -> None:
    wanted = config(tiny, tmp_path, epochs=1, checkpoint_steps=1)
    run(wanted)
    lines: list[dict[str, Any]] = []
    train(wanted, lines.append, fresh=True)
    assert [line.get("event") for line in lines if "event" in line] == ["data", "saved"]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]


@pytest.mark.parametrize(("checkpoint_steps", "says"), [
    (2, "the same command goes on from step"), (0, "nothing of it is kept, because checkpoint_steps is 0"),
])  # fmt: skip
def test_ctrl_c_ends_after_the_step(tiny: Path, tmp_path: Path, checkpoint_steps: int, says: str) -> None:
    conversations(tmp_path / "data.jsonl", 40)
    wanted = config(tiny, tmp_path, epochs=8, checkpoint_steps=checkpoint_steps)
    code, errors = signalled_after(wanted, 3, tmp_path, signal.SIGINT)
    assert code == 3
    assert len(errors.splitlines()) == 1
    assert errors.startswith("error: stopped after step ")
    assert says in errors
    assert "stopped after step" in (tmp_path / "out/file.log").read_text()
    if checkpoint_steps:
        stopped_at = metrics(tmp_path / "out")[-1]["step"]
        resumed = run(wanted)
        assert (resumed[1]["event"], resumed[1]["step"]) == ("resumed", stopped_at)
        whole = run(config(tiny, tmp_path, epochs=8, save_model_path=str(tmp_path / "whole")))
        assert losses(metrics(tmp_path / "out")) == pytest.approx(losses(whole), rel=1e-4)


def test_a_held_out_file_that_cannot_be_used_is_named(tiny: Path, tmp_path: Path) -> None:
    write(tmp_path / "v.jsonl", [{"messages": [{"role": "user", "content": "x"}]}])
    with pytest.raises(ToolkitError, match=r"v\.jsonl:1: "):
        run(config(tiny, tmp_path, validation_path=str(tmp_path / "v.jsonl")))
    assert not (tmp_path / "out").exists()
