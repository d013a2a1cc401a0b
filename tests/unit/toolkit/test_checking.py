"""`check-model` on a real sharded model, whole and with each planted damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.checking import Checked, Options, check_folder
from ftagent.toolkit.checking.headers import DamagedHeader, read_header
from ftagent.toolkit.checking.weights import INDEX
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.files import mark_complete, sha256

pytestmark = pytest.mark.model
QUICK = Options(memory=False)


@pytest.fixture(scope="module")
def sharded(tiny: Path, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("sharded")
    AutoModelForCausalLM.from_pretrained(tiny).save_pretrained(folder, max_shard_size="80KB")
    tokenizer.save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) >= 4
    return folder


@pytest.fixture
def copy(sharded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sharded, tmp_path / "model"))


def shard(folder: Path, number: int = 0) -> Path:
    """The small shards first: the embedding has one of its own."""
    return sorted(folder.glob("model-*.safetensors"), key=lambda path: path.stat().st_size)[number]


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change tensors of a shard and save it as safetensors does."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def told(checked: Checked) -> dict[str, str]:
    """Texts and advice of the faults by check."""
    texts: dict[str, str] = {}
    for finding in checked.faults:
        texts[finding.check] = f"{texts.get(finding.check, '')}{finding.text}; {finding.right}; "
    return texts


def test_a_whole_model_has_no_fault(sharded: Path) -> None:
    checked = check_folder(sharded, Options(lengths=[128], deep=True))
    assert [finding for finding in checked.findings if finding.status != "ok"] == []
    names = {finding.check for finding in checked.findings}
    assert names == {
        "files", "config", "tensors", "tokenizer", "vocabulary", "special tokens", "chat template",
        "generation config", "values", "toolkit",
    }  # fmt: skip
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(sharded)
    assert checked.weights.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (checked.document()["architecture"], checked.weights.dtypes) == ("LlamaForCausalLM", ("F32",))


def missing_shard(folder: Path) -> None:
    shard(folder).unlink()


def truncated_shard(folder: Path) -> None:
    path = shard(folder)
    path.write_bytes(path.read_bytes()[:-100])


def shard_with_more_at_its_end(folder: Path) -> None:
    with shard(folder).open("ab") as stream:
        stream.write(b"\0" * 8)


def empty_shard(folder: Path) -> None:
    shard(folder).write_bytes(b"")


def page_of_an_error_instead_of_a_shard(folder: Path) -> None:
    shard(folder).write_text("<html>504 Gateway Time-out</html>")


def pointer_instead_of_a_shard(folder: Path) -> None:
    shard(folder).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 100\n")


def index_with_a_name_twice(folder: Path) -> None:
    text = (folder / INDEX).read_text()
    name = next(iter(json.loads(text)["weight_map"]))
    (folder / INDEX).write_text(text.replace('"weight_map": {', f'"weight_map": {{"{name}": "x.safetensors",'))


def index_that_names_another_shard(folder: Path) -> None:
    def move(index: dict[str, Any]) -> None:
        places = index["weight_map"]
        places["model.norm.weight"] = next(file for file in places.values() if file != places["model.norm.weight"])

    edit(folder / INDEX, move)


def index_without_a_tensor(folder: Path) -> None:
    edit(folder / INDEX, lambda index: index["weight_map"].pop("model.norm.weight"))


def index_that_leaves_the_folder(folder: Path) -> None:
    edit(folder / INDEX, lambda index: index["weight_map"].update({"model.norm.weight": "../model.safetensors"}))


def index_of_nothing(folder: Path) -> None:
    (folder / INDEX).write_text("[]")


def tensor_in_two_shards(folder: Path) -> None:
    import torch

    name = next(iter(read_header(shard(folder, 0))))
    rewrite(shard(folder, 1), lambda tensors: tensors.update({name: torch.zeros(1)}))


def tensor_missing(folder: Path) -> None:
    path = shard(folder)
    name = next(iter(read_header(path)))
    rewrite(path, lambda tensors: tensors.pop(name))
    edit(folder / INDEX, lambda index: index["weight_map"].pop(name))


def wrong_shape(folder: Path) -> None:
    import torch

    for path in folder.glob("model-*.safetensors"):
        if "model.norm.weight" in read_header(path):
            rewrite(path, lambda tensors: tensors.update({"model.norm.weight": torch.ones(47)}))


def weights_of_integers(folder: Path) -> None:
    import torch

    for path in folder.glob("model-*.safetensors"):
        if "model.norm.weight" in read_header(path):
            rewrite(path, lambda tensors: tensors.update({"model.norm.weight": torch.ones(48, dtype=torch.int32)}))


def config_of_another_size(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(hidden_size=64, head_dim=8, num_attention_heads=8))


def config_with_more_layers(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(num_hidden_layers=4, layer_types=None))


def unknown_architecture(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(model_type="llama_of_tomorrow"))


def config_is_missing(folder: Path) -> None:
    (folder / "config.json").unlink()


def config_is_cut(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text[: len(text) // 2])


def vocabulary_too_large(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool>", "</tool>"])
    tokenizer.save_pretrained(folder)


def tokenizer_is_missing(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def tokenizer_is_cut(folder: Path) -> None:
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text()[:1000])


def no_end_token(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda config: [config.pop(name) for name in ("eos_token", "pad_token")])


def broken_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}")


def forgetful_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")


def generation_config_is_cut(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id":')


def generation_config_of_another_model(folder: Path) -> None:
    edit(folder / "generation_config.json", lambda config: config.update(eos_token_id=151645))


def pickles_only(folder: Path) -> None:
    for path in folder.glob("model*safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def no_weights(folder: Path) -> None:
    for path in folder.glob("model*safetensors*"):
        path.unlink()


def no_index(folder: Path) -> None:
    (folder / INDEX).unlink()


DAMAGES: list[tuple[Callable[[Path], None], str, str]] = [
    (missing_shard, "files", "missing; download"),
    (truncated_shard, "headers", "is truncated"),
    (shard_with_more_at_its_end, "headers", "is too long"),
    (empty_shard, "headers", "the file has 0"),
    (page_of_an_error_instead_of_a_shard, "headers", "download the file again"),
    (pointer_instead_of_a_shard, "headers", "download the file again"),
    (index_with_a_name_twice, "index", "is there twice"),
    (index_that_names_another_shard, "index", "model.norm.weight: not in the shard"),
    (index_without_a_tensor, "index", "model.norm.weight: in a shard, but not in"),
    (index_that_leaves_the_folder, "index", "../model.safetensors"),
    (index_of_nothing, "index", INDEX),
    (tensor_in_two_shards, "index", "each tensor once"),
    (tensor_missing, "tensors", "missing: "),
    (wrong_shape, "shapes", "model.norm.weight is [47], config.json makes it [48]"),
    (weights_of_integers, "dtype", "model.norm.weight"),
    (config_of_another_size, "shapes", "config.json makes it"),
    (config_with_more_layers, "tensors", "model.layers.3."),
    (unknown_architecture, "config", "llama_of_tomorrow"),
    (config_is_missing, "config", "is missing"),
    (config_is_cut, "config", "config.json"),
    (vocabulary_too_large, "vocabulary", "2 tokens have ids beyond the 49152 embedding rows: </tool>, <tool>"),
    (tokenizer_is_missing, "tokenizer", "there is no tokenizer"),
    (tokenizer_is_cut, "tokenizer", "does not load"),
    (no_end_token, "special tokens", "eos_token in tokenizer_config.json"),
    (broken_template, "chat template", "does not render"),
    (forgetful_template, "chat template", "loses what was said: It is blue., Which colour has the sky?"),
    (generation_config_is_cut, "generation config", "does not load"),
    (generation_config_of_another_model, "generation config", "[151645]"),
    (pickles_only, "files", "ask the publisher for safetensors"),
    (no_weights, "files", "there are no weights"),
    (no_index, "files", f"download {INDEX}"),
]


@pytest.mark.parametrize(("damage", "check", "says"), DAMAGES, ids=[damage.__name__ for damage, _, _ in DAMAGES])
def test_each_damage_is_found(copy: Path, damage: Callable[[Path], None], check: str, says: str) -> None:
    damage(copy)
    faults = told(check_folder(copy, QUICK))
    assert says in faults.get(check, ""), faults
    assert all("\n" not in text for text in faults.values())


def test_weights_that_are_no_numbers_are_found_when_all_are_read(copy: Path) -> None:
    path = shard(copy)
    name = next(iter(read_header(path)))

    def plant(tensors: dict[str, Any]) -> None:
        tensors[name].view(-1)[:2] = float("nan")
        tensors[name].view(-1)[2] = float("inf")

    rewrite(path, plant)
    assert told(check_folder(copy, QUICK)) == {}
    faults = told(check_folder(copy, Options(memory=False, deep=True)))
    assert faults["values"].startswith(f"3 weights are NaN or infinite, in {name}")


def test_every_flipped_byte_of_a_header_is_found(sharded: Path, tmp_path: Path) -> None:
    """Names are compared with those of the architecture, everything else by the header itself."""
    source = shard(sharded)
    content = source.read_bytes()
    length = int.from_bytes(content[:8], "little")
    whole = {name: (tensor.dtype, tensor.shape) for name, tensor in read_header(source).items()}
    path = tmp_path / "flipped.safetensors"
    unseen = []
    for position in range(8 + length):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        try:
            found = {name: (tensor.dtype, tensor.shape) for name, tensor in read_header(path).items()}
        except DamagedHeader:
            continue
        if found == whole:
            unseen.append((position, flipped[: 8 + length][position - 10 : position + 10]))
    assert unseen == []


def test_a_flipped_byte_in_a_name_is_a_missing_tensor(copy: Path) -> None:
    path = shard(copy)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"model.layers", b"model.laxers", 1))
    faults = told(check_folder(copy, QUICK))
    assert "not in the shard that" in faults["index"]
    assert "missing: model.layers" in faults["tensors"]


def test_what_only_warns(copy: Path) -> None:
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    shutil.copy(shard(copy), copy / "old.safetensors")
    (copy / "chat_template.jinja").unlink()
    edit(copy / INDEX, lambda index: index["metadata"].update(total_size=1))
    edit(copy / "config.json", lambda config: config.update(eos_token_id=7, max_position_embeddings=512))
    (copy / "generation_config.json").unlink()
    checked = check_folder(copy, QUICK)
    assert told(checked) == {}
    warned = [finding.check for finding in checked.findings if finding.status == "warning"]
    assert sorted(warned) == ["chat template", "files", "files", "length", "sizes", "special tokens"]


def test_a_smaller_vocabulary_is_suspicious(copy: Path) -> None:
    """Rows may be padding, a tenth of them is not."""
    edit(copy / "config.json", lambda config: config.update(vocab_size=56000))
    warned = {finding.check: finding.text for finding in check_folder(copy, QUICK).findings if finding.status != "ok"}
    assert "may be the tokenizer of another model" in warned["vocabulary"]
    edit(copy / "config.json", lambda config: config.update(vocab_size=49280))
    found = {finding.check: finding for finding in check_folder(copy, QUICK).findings}
    assert (found["vocabulary"].status, found["vocabulary"].text[-10:]) == ("ok", "128 unused")


def test_a_template_that_refuses_a_system_prompt_warns(copy: Path) -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    (copy / "chat_template.jinja").write_text(template + "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    found = {finding.check: finding for finding in check_folder(copy, QUICK).findings}
    assert found["chat template"].status == "warning"
    assert "System role not supported" in found["chat template"].text


def test_hashes_of_the_marker(copy: Path) -> None:
    mark_complete(copy, "x", [path.name for path in copy.iterdir()])
    assert told(check_folder(copy, QUICK)) == {}
    path = shard(copy)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert f"{path.name}: not what complete.json has the hash of" in told(check_folder(copy, QUICK))["marker"]
    (copy / "complete.json").write_text('{"files": {"../../etc/passwd": "0"}}')
    assert "complete.json" in told(check_folder(copy, QUICK))["marker"]


def test_hashes_of_the_hub_cache(sharded: Path, tmp_path: Path) -> None:
    """Large files are named by their sha256 there, small ones by the hash that git gives them."""
    import subprocess

    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for source in sharded.iterdir():
        large = source.suffix == ".safetensors"
        command = ["git", "hash-object", "--no-filters", str(source)]
        name = sha256(source) if large else subprocess.check_output(command, text=True).strip()
        shutil.copy(source, blobs / name)
        (snapshot / source.name).symlink_to(Path("../../blobs") / name)
    checked = check_folder(snapshot, QUICK)
    assert told(checked) == {}
    assert any(f"{len(list(sharded.iterdir()))} files have the hashes" in finding.text for finding in checked.findings)
    for name in ("config.json", shard(sharded).name):
        path = snapshot / name
        path.resolve().write_bytes(path.read_bytes() + b" ")
    text = told(check_folder(snapshot, QUICK))["hashes"]
    assert text.startswith(f"config.json, {shard(sharded).name}: not what the hub has the hash of")


@pytest.mark.parametrize(("make", "says"), [(False, "No such file"), (True, "the folder is empty")])
def test_nothing_to_look_at(tmp_path: Path, make: bool, says: str) -> None:
    folder = tmp_path / "absent"
    if make:
        folder.mkdir()
    with pytest.raises(ToolkitError, match=says):
        check_folder(folder)
