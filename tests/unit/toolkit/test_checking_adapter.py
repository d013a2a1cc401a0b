"""Whether an adapter fits a base model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.checking import Options, check_folder, check_pair
from ftagent.toolkit.errors import ToolkitError
from support.adapters import make_adapter

pytestmark = pytest.mark.model
QUICK = Options(memory=False)


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tiny, tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def copy(adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "adapter"))


def other_base(tiny: Path, folder: Path, **changes: Any) -> Path:
    """Like `tiny`, of another shape."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(AutoConfig.from_pretrained(tiny, **changes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def told(base: Path, adapter: Path, options: Options = QUICK) -> dict[str, str]:
    return {finding.check: finding.text for finding in check_pair(base, adapter, options).faults}


def by_check(base: Path, adapter: Path) -> dict[str, tuple[str, str]]:
    return {finding.check: (finding.status, finding.text) for finding in check_pair(base, adapter, QUICK).findings}


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"use_rslora": True}, {"modules_to_save": ["lm_head"]}],
                         ids=["lora", "dora", "rslora", "saved"])  # fmt: skip
def test_an_adapter_fits_its_base(tiny: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    adapter = make_adapter(tiny, tmp_path / "a", **settings)
    found = by_check(tiny, adapter)
    assert {check: text for check, (status, text) in found.items() if status != "ok"} == {}
    assert "tensors fit LlamaForCausalLM" in found["adapter fit"][1]


def test_an_embedding_adapter_fits_its_base(tiny: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny, tmp_path / "a", target_modules=["embed_tokens", "q_proj"])
    assert told(tiny, adapter) == {}


def test_the_adapter_of_another_width_does_not_fit(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    wider = other_base(tiny, tmp_path / "wide", hidden_size=64, head_dim=8, num_attention_heads=8)
    assert "model.layers.0." in told(wider, adapter)["adapter shapes"]


def test_the_adapter_of_a_deeper_model_does_not_fit(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    shallow = other_base(tiny, tmp_path / "shallow", num_hidden_layers=2, layer_types=None)
    assert "no place for model.layers.2." in told(shallow, adapter)["adapter modules"]


def test_a_saved_embedding_of_another_vocabulary_does_not_fit(tiny: Path, tmp_path: Path) -> None:
    larger = other_base(tiny, tmp_path / "larger", vocab_size=49280)
    adapter = make_adapter(larger, tmp_path / "a", modules_to_save=["embed_tokens"])
    assert "model.embed_tokens.weight [49280, 48] on [49152, 48]" in told(tiny, adapter)["adapter shapes"]


def test_tokens_that_the_base_has_no_embedding_for(tiny: Path, copy: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.save_pretrained(copy)
    assert by_check(tiny, copy)["adapter vocabulary"][0] == "ok"
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(copy)
    assert "1 tokens have ids beyond" in told(tiny, copy)["adapter vocabulary"]
    (copy / "tokenizer.json").write_text("{")
    assert "does not load" in told(tiny, copy)["adapter tokenizer"]


def test_a_base_of_another_name_warns(tiny: Path, copy: Path) -> None:
    configure(copy, base_model_name_or_path="Qwen/Qwen3-8B")
    assert by_check(tiny, copy)["adapter base"][0] == "warning"
    configure(copy, base_model_name_or_path=f"someone/{tiny.name}")
    assert "adapter base" not in by_check(tiny, copy)
    assert told(tiny, copy) == {}


def test_rank_is_that_of_the_tensors(tiny: Path, copy: Path) -> None:
    configure(copy, r=8)
    assert told(tiny, copy)["adapter rank"].startswith("adapter_config.json says 8; not so ")
    configure(copy, r=8, rank_pattern={"q_proj": 4})
    assert told(tiny, copy) == {}


def test_only_safetensors_of_lora(tiny: Path, copy: Path) -> None:
    configure(copy, peft_type="IA3")
    assert told(tiny, copy) == {"adapter config": "peft_type is IA3"}
    (copy / "adapter_config.json").write_text("{")
    assert "adapter_config.json" in told(tiny, copy)["adapter config"]
    (copy / "adapter_model.safetensors").rename(copy / "adapter_model.bin")
    assert "is a pickle, never loaded" in told(tiny, copy)["adapter files"]


def test_damage_of_an_adapter(tiny: Path, copy: Path) -> None:
    def plant(tensors: dict[str, Any]) -> None:
        next(iter(tensors.values()))[0] = float("nan")

    rewrite(copy, plant)
    assert "NaN" in told(tiny, copy, Options(memory=False, deep=True))["values"]
    path = copy / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert "is truncated" in told(tiny, copy)["adapter headers"]


def test_an_adapter_by_itself(adapter: Path, tiny: Path, tmp_path: Path) -> None:
    checked = check_folder(adapter, QUICK)
    assert (checked.kind, checked.faults) == ("adapter", [])
    assert f"check-model BASE --adapter {adapter}" in checked.findings[-1].right
    with pytest.raises(ToolkitError, match="is an adapter itself"):
        check_pair(adapter, adapter)
    with pytest.raises(ToolkitError, match="cannot be looked at"):
        check_pair(tiny, tmp_path / "absent")
