"""DoRA, rank-stabilised LoRA, bfloat16, gradient checkpointing: each against what it should equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .training import config, killed_after, losses, run, same, weights

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


def generated(tiny: Path, adapter: Path) -> Any:
    """Logits of a model with an adapter loaded by PEFT."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), str(adapter))
    with torch.no_grad():
        return model(input_ids=torch.arange(100, 120)[None]).logits


def test_dora_trains_magnitudes_and_loads_in_peft(tiny: Path, tmp_path: Path) -> None:
    import torch

    lines = run(config(tiny, tmp_path, method="dora", epochs=6, learning_rate=1e-2))
    assert sum(losses(lines)[-3:]) < 0.9 * sum(losses(lines)[:3])
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["use_dora"]
    found = weights(tmp_path / "out")
    base = weights(tiny, "model.safetensors")
    name = "model.layers.2.mlp.up_proj"
    magnitude = found[f"base_model.model.{name}.lora_magnitude_vector"]
    # It begins as the norm of each output's weights, and moves.
    start = base[f"{name}.weight"].norm(dim=1)
    assert not torch.equal(magnitude, start)
    torch.testing.assert_close(magnitude, start, rtol=0.2, atol=0.2)
    run(config(tiny, tmp_path, epochs=6, learning_rate=1e-2, save_model_path=str(tmp_path / "lora")))
    assert not torch.allclose(generated(tiny, tmp_path / "out"), generated(tiny, tmp_path / "lora"), atol=1e-3)


def test_a_killed_dora_training_goes_on_with_the_same_result(tiny: Path, tmp_path: Path) -> None:
    values = {"method": "dora", "dropout": 0.1, "epochs": 4, "checkpoint_steps": 2}
    run(config(tiny, tmp_path, save_model_path=str(tmp_path / "whole"), **values))
    wanted = config(tiny, tmp_path, save_model_path=str(tmp_path / "killed"), **values)
    killed_after(wanted, 5, tmp_path)
    assert run(wanted)[1]["event"] == "resumed"
    same(tmp_path / "whole", tmp_path / "killed")


def test_rank_stabilised_adapters_scale_by_the_root(tiny: Path, tmp_path: Path) -> None:
    """alpha/sqrt(16) is what alpha·4/16 is without."""
    run(config(tiny, tmp_path, rank=16, alpha=8, rslora=True))
    run(config(tiny, tmp_path, rank=16, alpha=32, save_model_path=str(tmp_path / "plain")))
    same(tmp_path / "out", tmp_path / "plain")
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["use_rslora"]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_gradient_checkpointing_changes_nothing(tiny: Path, tmp_path: Path, method: str) -> None:
    values = {"method": method, "dropout": 0.2 if method == "lora" else 0.0, "learning_rate": 1e-3}
    plain = run(config(tiny, tmp_path, **values, save_model_path=str(tmp_path / "plain")))
    called = run(config(tiny, tmp_path, **values, gradient_checkpointing=True))
    assert losses(called) == pytest.approx(losses(plain), rel=1e-5)
    same(tmp_path / "plain", tmp_path / "out", "adapter_model.safetensors" if method == "lora" else "model.safetensors")


def test_gradient_checkpointing_computes_layers_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaAttention

    forward, calls = LlamaAttention.forward, [0]

    def counted(self: Any, *inputs: Any, **more: Any) -> Any:
        calls[0] += 1
        return forward(self, *inputs, **more)

    monkeypatch.setattr(LlamaAttention, "forward", counted)
    counts = []
    for checkpointing in (False, True):
        calls[0] = 0
        output = str(tmp_path / str(checkpointing))
        run(config(tiny, tmp_path, epochs=1, gradient_checkpointing=checkpointing, save_model_path=output))
        counts.append(calls[0])
    # Three layers in each of three steps, beside what both do to try the model out.
    assert counts[1] - counts[0] == 3 * 3


def test_full_training_in_bfloat16_keeps_small_steps(tiny: Path, tmp_path: Path) -> None:
    """Added to 16-bit weights, steps of a millionth would be lost in rounding."""
    import torch

    values = {"method": "full", "learning_rate": 1e-6, "epochs": 3, "checkpoint_steps": 2}
    lines = run(config(tiny, tmp_path, **values, dtype="bfloat16"))
    exact = run(config(tiny, tmp_path, **values, save_model_path=str(tmp_path / "exact")))
    assert losses(lines) == pytest.approx(losses(exact), rel=0.03)
    saved = weights(tmp_path / "out", "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"
    base = weights(tiny, "model.safetensors")
    state = weights(tmp_path / "out/checkpoints" / f"step-{lines[0]['steps']:08d}", "state.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    moved = state[f"weight/{name}"] - base[name]
    assert state[f"weight/{name}"].dtype == torch.float32
    assert (moved != 0).float().mean() > 0.9
    assert moved.abs().max() < 1e-4


def test_adapters_over_a_bfloat16_base_are_float32(tiny: Path, tmp_path: Path) -> None:
    import torch

    lines = run(config(tiny, tmp_path, dtype="bfloat16", epochs=6, learning_rate=1e-2))
    assert sum(losses(lines)[-3:]) < 0.9 * sum(losses(lines)[:3])
    assert {tensor.dtype for tensor in weights(tmp_path / "out").values()} == {torch.float32}
