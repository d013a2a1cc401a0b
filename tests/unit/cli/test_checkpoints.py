"""`ftagent checkpoints` on folders as trainings leave them."""

from __future__ import annotations

import re
from pathlib import Path

from ftagent.core.run_folder import RunFolder
from support.trained import save_training

from .conftest import CommandLine
from .test_bad_input import refused
from .test_commands import check


def test_a_training_is_listed(ftagent: CommandLine, tmp_path: Path) -> None:
    out = save_training(tmp_path / "out")
    (out / "checkpoints" / "step-00000020" / "complete.json").unlink()
    (out / "checkpoints" / "step-00000030" / "adapter_model.safetensors").write_bytes(b"")
    answer = ftagent("checkpoints", "out")
    assert (answer.code, answer.err) == (0, "")
    assert max(map(len, answer.out.splitlines())) <= 78, "it has to fit an ordinary terminal"
    lines = [re.sub(r"  +", "  ", line) for line in answer.out.splitlines()]
    assert lines[0] == "base model base-model"
    assert lines[2].startswith("step-10  10  2.000  loss 1.500  complete  2.")
    assert lines[2].endswith("best")
    assert "  20  1.000  loss 1.750  incomplete  " in lines[3]
    assert "  30  0.750  loss 2.000  damaged  " in lines[4]
    assert lines[5].endswith("newest")
    assert lines[6:] == [
        "step-00000020 is not used: complete.json is missing",
        "step-00000030 is not used: adapter_model.safetensors is not what was written",
    ]


def test_json_follows_its_schema(ftagent: CommandLine, tmp_path: Path, finished_run: RunFolder) -> None:
    out = save_training(tmp_path / "out")
    (out / "checkpoints" / "step-00000020" / "complete.json").unlink()
    document = check("checkpoints", ftagent("checkpoints", "out", "--json").out)
    assert (document["kind"], document["base_model"]) == ("training", "base-model")
    assert [item["state"] for item in document["checkpoints"]] == ["complete", "incomplete", "complete", "complete"]
    assert document["checkpoints"][0]["value"] == 1.5
    document = check("checkpoints", ftagent("checkpoints", finished_run.path, "--json").out)
    assert (document["kind"], document["base_model"]) == ("run", "smollm2-135m")
    # Its configuration alone is no adapter.
    assert document["checkpoints"][0]["holds"] == "state"


def test_folders_that_hold_nothing_are_refused(ftagent: CommandLine, tmp_path: Path) -> None:
    refused(ftagent("checkpoints", "absent"), "absent", "no such folder")
    (tmp_path / "empty").mkdir()
    refused(ftagent("checkpoints", "empty"), "neither a training, a run, an adapter nor a model")
    (tmp_path / "empty" / "checkpoints").mkdir()
    assert ftagent("checkpoints", "empty").out == "nothing saved in empty yet\n"
