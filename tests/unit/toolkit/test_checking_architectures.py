"""Models of several families, small and with random weights, are found to be what transformers saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.checking import Options, check_folder
from ftagent.toolkit.checking.memory import shape_of
from support.adapters import make_base

pytestmark = pytest.mark.model
COMMON: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": None, "eos_token_id": 256, "pad_token_id": None,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {},
    "gemma3_text": {},
    "mistral": {"sliding_window": None},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": {
        "num_key_value_heads": 4, "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2,
        "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "q_lora_rank": 8, "kv_lora_rank": 8,
        "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "first_k_dense_replace": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_the_family_has_no_fault(family: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    make_base(tmp_path)
    models: Any = AutoModelForCausalLM
    torch.manual_seed(0)
    model = models.from_config(AutoConfig.for_model(family, **{**COMMON, **FAMILIES[family]}))
    model.save_pretrained(tmp_path)
    checked = check_folder(tmp_path, Options(lengths=[32], deep=True))
    assert checked.faults == []
    assert [finding.text for finding in checked.findings if finding.check == "tensors"] != []
    assert checked.document()["architecture"] == type(model).__name__
    shape = shape_of(checked.model)
    assert (shape.layers, shape.hidden) == (2, 32)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    # Files also hold a buffer of DeepSeek's routing, one number an expert.
    assert checked.weights.parameters - shape.parameters == (4 if family == "deepseek_v3" else 0)
    assert shape.mlp == {"qwen3_moe": 32, "gpt_oss": 128, "mixtral": 128, "deepseek_v3": 48}.get(family, 64)
    assert {need.method for need in checked.needs} == {"inference", "full", "lora", "dora", "qlora"}


def test_weights_of_another_family_are_told_by_name(tmp_path: Path) -> None:
    from transformers import AutoConfig

    make_base(tmp_path)
    AutoConfig.for_model("qwen3", **COMMON).save_pretrained(tmp_path)
    faults = {finding.check: finding.text for finding in check_folder(tmp_path, Options(memory=False)).faults}
    assert "model.layers.0.self_attn.k_norm.weight" in faults["tensors"]
