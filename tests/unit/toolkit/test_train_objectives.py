"""DPO and GRPO from YAML: what they write, what they refuse, and that a killed one goes on as if it had not been."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.config import TrainConfig, validate_config
from ftagent.toolkit.errors import Interrupted, ToolkitError
from ftagent.toolkit.launch import launch
from ftagent.toolkit.train import train

from .rows import preferences, problems, write
from .training import killed_after, losses, metrics, run, weights

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
DPO = {"objective": "dpo", "learning_rate": 3e-3, "epochs": 4, "batch_size": 3}
GRPO = {
    "objective": "grpo", "verifier": "number", "epochs": 1, "batch_size": 2, "grpo_group_size": 3,
    "grpo_max_new_tokens": 5, "learning_rate": 3e-3, "grpo_format": ".*u.*", "grpo_format_weight": 0.5,
}  # fmt: skip


def config(tiny: Path, tmp_path: Path, **values: Any) -> TrainConfig:
    made: list[Any] = preferences(6) if values["objective"] == "dpo" else problems(8)
    keys = ("prompt", "chosen", "rejected", "answer")
    rows = [{key: value for key, value in asdict(row).items() if key in keys} for row in made]
    data = write(tmp_path / f"{values['objective']}.jsonl", rows)
    base = {"model_path": str(tiny), "dataset_path": str(data), "save_model_path": str(tmp_path / "out"), "rank": 4}
    return validate_config({**base, **values}, TrainConfig, "train.yaml")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_dpo_raises_the_margin(tiny: Path, tmp_path: Path, method: str) -> None:
    rate = 3e-3 if method == "lora" else 3e-4
    lines = run(config(tiny, tmp_path, **{**DPO, "method": method, "learning_rate": rate}))
    steps = [line for line in lines if "margin" in line]
    assert len(steps) == 8
    assert steps[0]["margin"] == pytest.approx(0.0, abs=1e-4)
    assert steps[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert steps[-1]["margin"] > 0.2
    assert steps[-1]["loss"] < 0.6
    assert steps[-1]["accuracy"] == pytest.approx(1.0)
    assert metrics(tmp_path / "out") == steps
    assert lines[0] | {"event": "data", "steps": 8, "rows": 6, "rows_cut": 0, "rows_dropped": 0} == lines[0]


def test_grpo_writes_rewards_and_an_adapter(tiny: Path, tmp_path: Path) -> None:
    lines = run(config(tiny, tmp_path, **GRPO, grpo_kl=0.1))
    steps = [line for line in lines if "reward" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert {"kl", "clipped", "reward_std", "no_signal", "reply_tokens", "truncated"} <= set(steps[0])
    assert steps[0]["kl"] == pytest.approx(0.0, abs=1e-5)
    assert steps[-1]["kl"] > 0
    assert sum(line["reward"] for line in steps) > 0
    assert steps[-1]["tokens"] > steps[0]["tokens"] > 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["tokens"] == steps[-1]["tokens"]
    assert any("lora_B" in name and tensor.abs().sum() > 0 for name, tensor in weights(tmp_path / "out").items())


@pytest.mark.parametrize(
    "values",
    [
        {**DPO, "checkpoint_steps": 3, "dropout": 0.2},
        {**DPO, "checkpoint_steps": 3, "method": "full", "learning_rate": 3e-4},
        {**GRPO, "checkpoint_steps": 2, "grpo_updates": 2, "grpo_kl": 0.1},
    ],
    ids=["dpo lora", "dpo full", "grpo"],
)
def test_a_killed_training_goes_on_with_the_same_result(tiny: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    import torch

    values = {**values, "log_steps": 1}
    whole = run(config(tiny, tmp_path, **values, save_model_path=str(tmp_path / "whole")))
    wanted = config(tiny, tmp_path, **values, save_model_path=str(tmp_path / "killed"))
    killed_after(wanted, 5, tmp_path)
    assert not (tmp_path / "killed" / "complete.json").exists()
    resumed = run(wanted)
    assert resumed[1]["event"] == "resumed"
    assert resumed[1]["step"] >= 3
    steps = metrics(tmp_path / "killed")
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert [line["loss"] for line in steps] == pytest.approx(losses(whole), rel=1e-4, abs=1e-6)
    if values["objective"] == "grpo":
        expected = [line["reward"] for line in whole if "reward" in line]
        assert [line["reward"] for line in steps] == pytest.approx(expected)
        assert sum(line["no_signal"] < 1 for line in steps) > 0
    name = "model.safetensors" if values.get("method") == "full" else "adapter_model.safetensors"
    due, found = (weights(tmp_path / folder, name) for folder in ("whole", "killed"))
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, due[key], rtol=1e-4, atol=1e-6)


def test_ctrl_c_ends_grpo_with_its_set_of_replies(tiny: Path, tmp_path: Path) -> None:
    values = {**GRPO, "checkpoint_steps": 4, "grpo_updates": 2}
    whole = run(config(tiny, tmp_path, **values, save_model_path=str(tmp_path / "whole")))
    wanted = config(tiny, tmp_path, **values, save_model_path=str(tmp_path / "stopped"))

    def interrupt(record: dict[str, Any]) -> None:
        if record.get("step") == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped after step 6 of 8; the same command goes on from step 6"):
        train(wanted, interrupt)
    assert run(wanted)[1] == {"event": "resumed", "step": 6}
    found = [line["loss"] for line in metrics(tmp_path / "stopped")]
    assert found == pytest.approx(losses(whole), rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("values", [DPO, {**GRPO, "batch_size": 3, "grpo_normalisation": "dapo"}], ids=["dpo", "grpo"])
def test_two_processes_train_as_one_does(tiny: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    values = {**values, "learning_rate": 1e-3, "save_model_path": str(tmp_path / "one")}
    one = run(config(tiny, tmp_path, **values))
    lines: list[dict[str, Any]] = []
    launch(config(tiny, tmp_path, **{**values, "save_model_path": str(tmp_path / "two")}), 2, False, lines.append)
    steps, due = ([line for line in found if "loss" in line] for found in (lines, one))
    assert len(steps) == len(due) > 2
    for step, expected in zip(steps, due, strict=True):
        assert step == pytest.approx({**expected, "seconds": step["seconds"]}, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("objective", ["dpo", "grpo"])
def test_held_out_rows_are_measured(tiny: Path, tmp_path: Path, objective: str) -> None:
    from ftagent.toolkit.models import load_model
    from ftagent.toolkit.objectives.build import prepare_objective, read_rows

    wanted = config(tiny, tmp_path, **(DPO if objective == "dpo" else GRPO), validation_share=0.34)
    model, tokenizer = load_model(str(tiny), "float32", "cpu")
    prepared = prepare_objective(model, tokenizer, wanted, read_rows(wanted))
    assert sum(map(len, prepared.held_out)) == (2 if objective == "dpo" else 3)
    loss = prepared.objective.held_out_loss(model, prepared.held_out)
    assert loss == prepared.objective.held_out_loss(model, prepared.held_out)
    assert loss == pytest.approx(0.6931, abs=1e-3) if objective == "dpo" else loss <= 0


def test_a_reference_that_cannot_be_kept_is_one_line(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ToolkitError, match=r"reference\.json: cannot be written: Not a directory"):
        run(config(tiny, tmp_path, **DPO, checkpoint_steps=1))


def test_a_budget_of_tokens_ends_with_a_whole_pair(tiny: Path, tmp_path: Path) -> None:
    values = {key: value for key, value in DPO.items() if key != "epochs"}
    lines = run(config(tiny, tmp_path, **values, max_tokens=700))
    assert 500 < lines[-1]["tokens"] <= 700


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({**DPO, "max_length": 20}, "no pair has two different replies within max_length 20"),
        ({**DPO, "epochs": None, "max_tokens": 9}, "max_tokens: 9 ends before the first pair"),
        ({**GRPO, "verifier": "numbr"}, "verifier: unknown 'numbr'; did you mean 'number'?"),
        ({**GRPO, "verifier": "rg:countdown"}, "grpo.jsonl:1: verifier rg:countdown: rg:countdown does not accept"),
        ({**GRPO, "verifier": ""}, "objective grpo needs a verifier"),
        ({**GRPO, "epochs": None, "max_tokens": 9}, "give epochs, not max_tokens"),
        ({**GRPO, "method": "full", "grpo_kl": 0.1}, "grpo_kl needs the untouched model, which method full changes"),
        ({**GRPO, "grpo_updates": 2, "checkpoint_steps": 3}, "checkpoint_steps must be a multiple of grpo_updates, 2"),
        (
            {**GRPO, "grpo_updates": 2, "validation_steps": 3, "validation_share": 0.3},
            "validation_steps must be a multiple of grpo_updates, 2",
        ),
        ({**GRPO, "grpo_format": "("}, "grpo_format is not a regular expression"),
        ({**GRPO, "grpo_max_new_tokens": 9000}, "grpo.jsonl:1: "),
    ],
)
def test_what_cannot_be_done_is_one_line(tiny: Path, tmp_path: Path, values: dict[str, Any], says: str) -> None:
    with pytest.raises(ToolkitError) as error:
        run(config(tiny, tmp_path, **values))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
