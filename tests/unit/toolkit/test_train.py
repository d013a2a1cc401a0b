import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.checkpoint import TENSORS
from ftagent.toolkit.errors import Diverged, ToolkitError
from ftagent.toolkit.loop import learning_rate
from ftagent.toolkit.mapping import Mapping, mapping_of
from ftagent.toolkit.train import train

from .rows import write
from .training import config, killed_after, losses, run, weights

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


def test_training_reduces_the_loss_and_says_what_it_saw(tiny: Path, tmp_path: Path) -> None:
    lines = run(config(tiny, tmp_path, epochs=10, learning_rate=1e-2, dropout=0.1, schedule="cosine"))
    found = losses(lines)
    assert sum(found[-3:]) < 0.8 * sum(found[:3])
    assert lines[0] == {
        "event": "data", "steps": 30, "tokens": lines[-1]["tokens"], "rows": 12, "rows_cut": 0, "rows_dropped": 0,
    }  # fmt: skip
    written = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert written == [line for line in lines if "step" in line]
    assert set(written[0]) == {"step", "loss", "tokens", "learning_rate", "seconds"}
    assert written[-1]["tokens"] == lines[0]["tokens"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["steps"] == 30
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tiny: Path, tmp_path: Path) -> None:
    import torch

    results = []
    for output, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(config(tiny, tmp_path, save_model_path=str(tmp_path / output), seed=seed, dropout=0.2))
        results.append(weights(tmp_path / output))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert not all(torch.equal(results[0][name], results[2][name]) for name in results[0])


def test_a_token_budget_is_met_exactly(tiny: Path, tmp_path: Path) -> None:
    assert run(config(tiny, tmp_path, max_tokens=777, log_steps=3))[-1]["tokens"] == 777


def test_adapters_are_on_the_last_layers_and_modules_that_were_asked_for(tiny: Path, tmp_path: Path) -> None:
    run(config(tiny, tmp_path, layers=2, target_modules=["q_proj", "down_proj"], rank=3))
    found = weights(tmp_path / "out")
    places = {(name.split(".")[4], name.split(".")[6]) for name in found}
    assert places == {(layer, module) for layer in "12" for module in ("q_proj", "down_proj")}
    assert {min(tensor.shape) for tensor in found.values()} == {3}


def test_full_training_writes_weights_that_load_and_differ(tiny: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    lines = run(config(tiny, tmp_path, method="full", epochs=6, learning_rate=3e-3))
    assert losses(lines)[-1] < losses(lines)[0]
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (tiny, tmp_path / "out"))
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(before.state_dict()[name], after.state_dict()[name])


def test_rows_that_max_length_cuts_are_counted(tiny: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    turns = [("hi", "a b c d e f g h i j k l m n o p"), ("hi", "a"), ("long " * 40, "a")]
    write(
        data,
        [{"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]} for a, b in turns],
    )
    lines = run(config(tiny, tmp_path, max_length=40))
    assert (lines[0]["rows"], lines[0]["rows_cut"], lines[0]["rows_dropped"]) == (2, 2, 1)
    with pytest.raises(ToolkitError, match=r"data\.jsonl: max_length 5 leaves no label in any row"):
        run(config(tiny, tmp_path, max_length=5))


def test_a_killed_training_goes_on_with_the_same_result(tiny: Path, tmp_path: Path) -> None:
    import torch

    values = {"epochs": 5, "dropout": 0.2, "log_steps": 1, "checkpoint_steps": 3, "schedule": "cosine"}
    values |= {"keep_checkpoints": 0}
    whole = run(config(tiny, tmp_path, save_model_path=str(tmp_path / "whole"), **values))
    wanted = config(tiny, tmp_path, save_model_path=str(tmp_path / "killed"), **values)
    killed_after(wanted, 7, tmp_path)
    assert not (tmp_path / "killed" / "complete.json").exists()
    resumed = run(wanted)
    assert resumed[1]["event"] == "resumed"
    assert resumed[1]["step"] >= 6
    assert losses(resumed)[-1] == pytest.approx(losses(whole)[-1], rel=1e-5)
    steps = [json.loads(line) for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps] == list(range(1, 16))
    assert [line["loss"] for line in steps] == pytest.approx(losses(whole), rel=1e-5)
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6)
    assert not (tmp_path / "killed" / "checkpoints").exists()
    assert run(wanted) == [{"event": "already_complete", "output": str(tmp_path / "killed")}]


def test_a_training_that_diverges_ends_and_keeps_its_last_good_checkpoint(tiny: Path, tmp_path: Path) -> None:
    wanted = config(
        tiny, tmp_path, method="full", learning_rate=1e30, warmup_ratio=0.0, epochs=5, checkpoint_steps=1,
        max_grad_norm=0.0, weight_decay=1.0,
    )  # fmt: skip
    with pytest.raises(Diverged, match=r"step \d+: the loss is (nan|inf) at learning_rate .*; try a lower one"):
        run(wanted)
    written = (tmp_path / "out/metrics.jsonl").read_text()
    assert "NaN" not in written
    assert "Infinity" not in written


@pytest.mark.parametrize("damage", ["truncated", "unmarked", "other"])
def test_only_a_complete_checkpoint_is_trusted(tiny: Path, tmp_path: Path, damage: str) -> None:
    told = {"map_function": "chatml", "thinking": "drop"}
    wanted = config(tiny, tmp_path, epochs=2, checkpoint_steps=2, log_steps=1, **told)

    class Stop(Exception):
        pass

    def stop_at(line: dict[str, Any]) -> None:
        if line.get("step") == 3:
            raise Stop

    with pytest.raises(Stop):
        train(wanted, stop_at)
    checkpoint = tmp_path / "out" / "checkpoints" / "step-00000002"
    assert mapping_of(checkpoint) == Mapping("chatml", "drop")  # before there is a result
    if damage == "truncated":
        tensors = (checkpoint / TENSORS).read_bytes()
        (checkpoint / TENSORS).write_bytes(tensors[: len(tensors) // 2])
    elif damage == "unmarked":
        (checkpoint / "complete.json").unlink()
    else:
        wanted = wanted.model_copy(update={"learning_rate": 2e-3})
    lines = run(wanted)
    assert [line["event"] for line in lines if "event" in line] == ["data", "saved"]
    assert [line["step"] for line in lines if "step" in line] == list(range(1, 7))
    # What is left of the other training would stand among the steps of this one.
    assert {path.name for path in (tmp_path / "out/checkpoints").iterdir()} == {"step-00000004", "step-00000006"}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"layers": 9}, "layers: 9 is more than the model's 3"),
        ({"target_modules": ["q_proj", "nope"]}, "target_modules: nope; the model has down_proj, gate_proj"),
        ({"max_tokens": 3}, "max_tokens: 3 ends before the first label"),
        ({"model_path": "/nowhere"}, "model '/nowhere' cannot be loaded"),
        ({"device": "cuda"}, "device: cuda was asked for, but torch sees no GPU"),
        ({"dtype": "float16"}, "dtype: float16 needs a GPU; a CPU computes in float32 or bfloat16"),
        ({"method": "qlora"}, "method: qlora needs a GPU, and torch sees none; method lora also runs on a CPU"),
        ({"report_to": "wandb"}, "report_to: wandb needs the package wandb; run `pip install 'ftagent[wandb]'`"),
        ({"validation_share": 0.01}, "validation_share: 0.01 of 12 rows leaves one part empty"),
    ],
)
def test_what_cannot_be_done_is_one_line(tiny: Path, tmp_path: Path, values: dict[str, Any], says: str) -> None:
    with pytest.raises(ToolkitError) as error:
        run(config(tiny, tmp_path, **values))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pickle_in_place_of_safetensors_is_refused(tiny: Path, tmp_path: Path) -> None:
    import shutil

    import torch

    folder = tmp_path / "pickled"
    shutil.copytree(tiny, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ToolkitError, match="cannot be loaded"):
        run(config(tiny, tmp_path, model_path=str(folder)))
    torch.save({}, folder / "model.safetensors")
    with pytest.raises(ToolkitError, match="cannot be loaded"):
        run(config(tiny, tmp_path, model_path=str(folder)))


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_rows_longer_than_the_model_are_refused(tiny: Path, tmp_path: Path, objective: str) -> None:
    folder = tmp_path / "short"
    shutil.copytree(tiny, folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "max_position_embeddings": 40}))
    long, asked = " ".join(["one"] * 60), [{"role": "user", "content": "a"}]
    said = [{"role": "assistant", "content": long}]
    pair = {"prompt": asked, "chosen": said, "rejected": [{"role": "assistant", "content": "b"}]}
    row = {"messages": asked + said} if objective == "sft" else pair
    write(tmp_path / "data.jsonl", [row])
    wanted = config(tiny, tmp_path, model_path=str(folder), objective=objective)
    with pytest.raises(ToolkitError, match=r"1 of 1 rows have more tokens than the model's 40 positions .* max_length"):
        run(wanted)


def test_the_command_says_what_is_wrong_and_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("model_path: m\nrang: 3\n")
    command = [sys.executable, "-m", "ftagent.toolkit.train", str(tmp_path / "train.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'train.yaml'}:2: rang: unknown key; did you mean 'rank'?\n"


def test_schedules_warm_up_and_end_near_zero(tiny: Path, tmp_path: Path) -> None:
    for schedule in ("linear", "cosine", "constant"):
        wanted = config(tiny, tmp_path, schedule=schedule, warmup_ratio=0.1, learning_rate=1.0)
        rates = [learning_rate(step, 100, wanted) for step in range(100)]
        assert rates[:10] == sorted(rates[:10])
        assert rates[10] == 1.0
        assert rates[10:] == sorted(rates[10:], reverse=True)
        assert rates[-1] == 1.0 if schedule == "constant" else rates[-1] < 0.02


def test_a_model_without_all_of_its_weights_is_refused(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "torn"
    shutil.copytree(tiny, folder)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors = load_file(folder / "model.safetensors")
    save_file({key: value for key, value in tensors.items() if key != name}, folder / "model.safetensors")
    with pytest.raises(ToolkitError, match=rf"its files lack 1 tensors, such as {name}"):
        run(config(tiny, tmp_path, model_path=str(folder)))
    save_file({**tensors, name: tensors[name][:, 1:].contiguous()}, folder / "model.safetensors")
    with pytest.raises(ToolkitError, match="cannot be loaded: ") as error:
        run(config(tiny, tmp_path, model_path=str(folder)))
    assert "\n" not in str(error.value)


def test_a_model_whose_generation_config_the_library_does_not_save_is_trained(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "greedy"
    shutil.copytree(tiny, folder)
    values = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**values, "do_sample": False, "temperature": 0.6}))
    run(config(tiny, tmp_path, model_path=str(folder), method="full", epochs=0.1))
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written["do_sample"] is False
    assert written.get("temperature") is None


def test_weights_take_the_place_of_an_older_adapter(tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    run(config(tiny, tmp_path, epochs=0.1))
    run(config(tiny, tmp_path, epochs=0.1, method="full"))
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(tensor.equal(found[name]) for name, tensor in weights(tmp_path / "out", "model.safetensors").items())
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_a_result_of_the_model_that_was_there_before_is_not_taken(tiny: Path, tmp_path: Path) -> None:
    """A model that was trained anew has the path, and the size, of the older one."""
    first = config(tiny, tmp_path, method="full", epochs=0.1, save_model_path=str(tmp_path / "first"))
    second = config(tiny, tmp_path, model_path=str(tmp_path / "first"), epochs=0.1)
    run(first)
    assert run(second)[-1]["event"] == "saved"
    assert run(second)[-1]["event"] == "already_complete"
    run(first.model_copy(update={"learning_rate": 3e-3}))
    assert run(second)[-1]["event"] == "saved"
