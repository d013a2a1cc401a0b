"""Merging an adapter: the merged model is the adapter, or there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.checking import Options, check_folder
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.mapping import Mapping, mapping_of
from ftagent.toolkit.merging import Merged, UnequalMerge, merge
from ftagent.toolkit.proof import TOLERANCES, compare, logits_of, probe_ids
from support.adapters import make_adapter

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    # Where a test itself loads such an adapter.
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
]
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"up_proj": 3}},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "saved head": {"modules_to_save": ["lm_head"]},
}


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tiny, tmp_path_factory.mktemp("adapter"))


def merged(base: Path, adapter: Path, out: Path, dtype: str = "auto") -> Merged:
    return merge(base, adapter, out, dtype, lambda record: None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_is_the_adapter(tiny: Path, tmp_path: Path, kind: str) -> None:
    """Checked here without the code that proves it: PEFT beside the base, transformers alone for the merged one."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = make_adapter(tiny, tmp_path / "a", **KINDS[kind])
    done = merged(tiny, adapter, tmp_path / "out")
    assert done.dtype == "float32"
    ids = torch.arange(100, 140)[None]
    with torch.inference_mode():
        base = AutoModelForCausalLM.from_pretrained(tiny)
        before = base(ids).logits
        wanted = PeftModel.from_pretrained(base, str(adapter)).eval()(ids).logits
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(ids).logits
    assert (found - wanted).abs().max() < 1e-3 * wanted.abs().max()
    assert kind == "saved head" or (before - wanted).abs().max() > 0.05 * wanted.abs().max()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtypes_and_what_is_written(tiny: Path, adapter: Path, tmp_path: Path, dtype: str) -> None:
    done = merged(tiny, adapter, tmp_path / "out", dtype)
    checked = check_folder(tmp_path / "out", Options(memory=False, deep=True))
    assert checked.faults == []
    assert checked.weights.dtypes == ({"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype],)
    assert any(finding.check == "marker" for finding in checked.findings)
    record = json.loads((tmp_path / "out/merge.json").read_text())
    assert record["proof"] == done.proof.document()
    assert record["proof"]["kl"] <= TOLERANCES[dtype].kl < record["proof"]["adapter_kl"]
    assert done.proof.note == ""
    card = (tmp_path / "out/README.md").read_text()
    assert f"{done.proof.kl:.3g} | {TOLERANCES[dtype].kl:g}" in card
    assert record["sources"]["adapter"]["adapter_model.safetensors"] in card
    assert (tmp_path / "out/generation_config.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_auto_is_the_dtype_of_the_base(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(base)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    assert merged(base, adapter, tmp_path / "out").dtype == "bfloat16"
    card = (tmp_path / "out/README.md").read_text()
    assert "\nlicense: apache-2.0\n" in card.split("---")[1]


def test_weights_that_do_not_fit_the_dtype_leave_nothing(tiny: Path, tmp_path: Path) -> None:
    """Beyond 65504 there is no number in float16: the merged model cannot be what the adapter is."""
    adapter = make_adapter(tiny, tmp_path / "a", scale=1e6)
    with pytest.raises(UnequalMerge, match="not finite in float16; nothing was kept"):
        merged(tiny, adapter, tmp_path / "out", "float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_proof_tells_adapter_and_base_apart(tiny: Path, adapter: Path, tokenizer: Any, dtype: str) -> None:
    """What would pass for equal must not be so wide that no merge at all passes."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny)
    probes = probe_ids(tokenizer)
    plain = logits_of(model, probes)
    wanted = logits_of(PeftModel.from_pretrained(model, str(adapter)).eval(), probes)
    assert compare(wanted, wanted, plain, dtype).problem == ""
    assert compare(wanted, plain, plain, dtype).problem != ""
    spoiled = [logits.clone() for logits in wanted]
    spoiled[-1][-1, 0] = float("nan")
    assert "not finite" in compare(wanted, spoiled, plain, dtype).problem


def test_rounding_that_swallows_the_adapter_is_noted(tiny: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny, tmp_path / "a", scale=1e-5)
    done = merged(tiny, adapter, tmp_path / "out", "bfloat16")
    assert "merge to float32" in done.proof.note
    assert done.proof.note in (tmp_path / "out/README.md").read_text()


def test_a_mismatch_is_refused(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(adapter, tmp_path / "a"))
    settings = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**settings, "r": 5}))
    with pytest.raises(ToolkitError, match=r"cannot be merged into .*adapter rank: adapter_config.json says 5"):
        merged(tiny, other, tmp_path / "out")
    with pytest.raises(ToolkitError, match="cannot be looked at"):
        merged(tiny, tmp_path / "absent", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_places_that_are_not_free(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    with pytest.raises(ToolkitError, match="the folder is not empty"):
        merged(tiny, adapter, full)
    with pytest.raises(ToolkitError, match="is there and no folder"):
        merged(tiny, adapter, full / "mine")
    assert [path.name for path in full.iterdir()] == ["mine"]


def test_an_empty_folder_is_taken_and_a_leftover_removed(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in (".out.merging-abcd1234", ".out-20240101", ".out-of-mind"):
        (tmp_path / name).mkdir()
    merged(tiny, adapter, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out-20240101", ".out-of-mind", "out"]


def test_a_checkpoint_has_template_and_mapping_of_its_training(
    tiny: Path, adapter: Path, tmp_path: Path, tokenizer: Any
) -> None:
    from transformers import AutoTokenizer

    trained = tmp_path / "trained"
    step = Path(shutil.copytree(adapter, trained / "checkpoints" / "step-00000004"))
    own = AutoTokenizer.from_pretrained(tiny)
    own.chat_template = own.chat_template + "{# of the training #}"
    own.save_pretrained(trained)
    (step / "train.yaml").write_text("map_function: chatml\nthinking: drop\n")
    merged(tiny, step, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == own.chat_template
    assert mapping_of(tmp_path / "out") == Mapping("chatml", "drop")


FULL_DISK = """
import subprocess, sys
from pathlib import Path
base, adapter, disk = map(Path, sys.argv[1:])
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]).returncode:
    sys.exit(77)
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.merging import merge
try:
    merge(base, adapter, disk / "out", "auto", lambda record: None)
except ToolkitError as error:
    print("refused:", error)
print("left:", [path.name for path in disk.iterdir()])
"""


def test_a_full_disk_leaves_nothing(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    """The model takes 10 MiB, the disk has 4."""
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", FULL_DISK, str(tiny), str(adapter), str(tmp_path)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("mounting a tmpfs needs root")
    assert "refused:" in done.stdout, done.stderr
    assert "cannot be written" in done.stdout
    assert "left: []" in done.stdout
