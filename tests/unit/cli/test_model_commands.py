"""`check-model` and `merge` at the command line: exit codes, lines, JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.adapters import make_adapter, make_base

from .conftest import CommandLine
from .test_bad_input import refused
from .test_commands import check

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(base, tmp_path_factory.mktemp("adapter"))


def test_a_whole_model(ftagent: CommandLine, base: Path, adapter: Path) -> None:
    answer = ftagent("check-model", base, "--adapter", adapter, "--lengths", "32,64", "--batch-size", "2", "--json")
    document = check("check_model", answer.out)
    assert (answer.code, document["faults"], document["architecture"]) == (0, 0, "LlamaForCausalLM")
    assert document["trainable_by_lora"] == 2 * 16 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))
    assert {(row["length"], row["batch"]) for row in document["memory"]} == {(32, 2), (64, 2)}
    assert [row["fits"] for row in document["memory"] if row["method"] == "lora"] == [True, True]
    assert all(abs(sum(row["parts_mb"].values()) - row["mb"]) <= len(row["parts_mb"]) / 2 for row in document["memory"])
    text = ftagent("check-model", base, "--lengths", "32").out
    assert text.endswith("no faults\n")
    assert "ok       tensors: names and shapes are those of LlamaForCausalLM" in text


def test_faults_are_exit_code_1(ftagent: CommandLine, base: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(base, tmp_path / "broken"))
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    answer = ftagent("check-model", broken)
    assert (answer.code, answer.err) == (1, "")
    assert "fault    headers: model.safetensors: it is truncated" in answer.out
    assert "; right: download the file again" in answer.out
    assert answer.out.endswith("1 fault\n")
    document = check("check_model", ftagent("check-model", broken, "--json").out)
    assert [finding["check"] for finding in document["findings"] if finding["status"] == "fault"] == ["headers"]
    # Even where nothing is left that is a model, there is something to look at.
    for file in ("config.json", "model.safetensors"):
        (broken / file).unlink()
    document = check("check_model", ftagent("check-model", broken, "--json").out)
    assert (document["architecture"], document["memory"], document["device"]) == (None, [], None)
    assert {finding["check"] for finding in document["findings"] if finding["status"] == "fault"} == {"files", "config"}


def test_what_cannot_be_looked_at(ftagent: CommandLine, base: Path, tmp_path: Path) -> None:
    refused(ftagent("check-model", "smollm2-135n"), "smollm2-135n", "smollm2-135m")
    refused(ftagent("check-model", base, "--lengths", "many"), "--lengths 'many'", "1024,4096")
    refused(ftagent("check-model", base, "--batch-size", "0"), "--batch-size")
    refused(ftagent("check-model", base, "--adapter", "absent"), "absent: cannot be looked at")
    (tmp_path / "empty").mkdir()
    refused(ftagent("check-model", "empty"), "the folder is empty")


def test_what_a_model_says_does_not_steer_the_terminal(
    ftagent: CommandLine, base: Path, adapter: Path, tmp_path: Path
) -> None:
    hostile = Path(shutil.copytree(adapter, tmp_path / "hostile"))
    values = json.loads((hostile / "adapter_config.json").read_text())
    for key, words in (("base_model_name_or_path", []), ("peft_type", ["--adapter"])):
        changed = {**values, key: "\x1b]0;owned\x07\x1b[2Jx"}
        (hostile / "adapter_config.json").write_text(json.dumps(changed))
        answer = ftagent("check-model", *([base, *words] if words else []), hostile)
        assert "x" in answer.out
        assert "\x1b" not in answer.out
    answer = ftagent("merge", base, hostile, "out")
    refused(answer, "peft_type is x")
    assert "\x1b" not in answer.err


def test_merge(ftagent: CommandLine, base: Path, adapter: Path, tmp_path: Path) -> None:
    answer = ftagent("merge", base, adapter, "out", "--json")
    document = check("merge", answer.out)
    assert (answer.code, document["dtype"]) == (0, "float32")
    assert json.loads((tmp_path / "out/merge.json").read_text())["proof"] == document["proof"]
    assert ftagent("check-model", "out", "--deep", "--lengths", "32").code == 0
    refused(ftagent("merge", base, adapter, "out"), "out: the folder is not empty")
    refused(ftagent("merge", base, adapter, "other", "--dtype", "int8"), "--dtype", "bfloat16")
    refused(ftagent("merge", base, "absent", "other"), "absent")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_merge_that_is_not_the_adapter_fails(ftagent: CommandLine, base: Path, tmp_path: Path) -> None:
    wild = make_adapter(base, tmp_path / "wild", scale=1e6)
    answer = ftagent("merge", base, wild, "out", "--dtype", "float16")
    assert answer.code == 1
    assert answer.err.splitlines()[-1].startswith("error: the merged model is not what the adapter is")
    assert not (tmp_path / "out").exists()
