"""A real tokenizer, the real small model, and a tiny model of the same architecture for what needs no sense."""

import os
from pathlib import Path
from typing import Any

import pytest

# As the commands set it: threads that spin while they wait are slow on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def smollm2(pytestconfig: pytest.Config) -> Path:
    """The folder of smollm2-135m, converted once and kept in pytest's cache."""
    from ftagent_llm.models import resolve_model

    cache = pytestconfig.cache
    assert cache is not None
    return resolve_model("smollm2-135m", cache.mkdir("ftagent_files")).path


@pytest.fixture(scope="session")
def tokenizer(smollm2: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2)


@pytest.fixture(scope="session")
def tiny(smollm2: Path, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers of width 48 with random weights and SmolLM2's tokenizer."""
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    config = AutoConfig.from_pretrained(
        smollm2, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    torch.manual_seed(5)
    model = LlamaForCausalLM(config)
    # Larger weights than usual: at random initialisation every next token would be equally likely.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
