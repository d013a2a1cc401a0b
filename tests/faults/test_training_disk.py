"""A full disk while a training writes: one line, exit code 1, and what was complete stays so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.files import is_complete
from support.disks import small_disk
from unit.toolkit.conftest import smollm2, tiny, tokenizer  # noqa: F401
from unit.toolkit.training import command_of, config, metrics, run, same

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


def complete(folder: Path) -> list[int]:
    """Steps of the checkpoints that are whole, whoever wrote them."""
    found = []
    for path in sorted((folder / "checkpoints").glob("step-*")):
        identity = json.loads((path / "complete.json").read_text())["fingerprint"]
        assert is_complete(path, identity), f"{path} is marked and not whole"
        found.append(int(path.name.removeprefix("step-")))
    return found


def size(folder: Path) -> int:
    """Bytes on a disk with pages of 4 KiB."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_full_disk_at_a_checkpoint(tiny: Path, tmp_path: Path, share: float) -> None:  # noqa: F811
    values: dict[str, Any] = {"epochs": 4, "checkpoint_steps": 3, "keep_checkpoints": 9, "log_steps": 12}
    run(config(tiny, tmp_path, save_model_path=str(tmp_path / "whole"), **values))
    one = size(tmp_path / "whole/checkpoints/step-00000003")
    with small_disk(tmp_path / "small", f"{one * 40 // 1024}k") as disk:
        wanted = config(tiny, tmp_path, save_model_path=str(disk / "out"), **values)
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - int((1 + share) * one) - 16384))
        done = subprocess.run(
            command_of(wanted, tmp_path), capture_output=True, text=True, env=os.environ, timeout=120, check=False
        )
        assert done.returncode == 1, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith(f"error: checkpoint '{disk}/out/checkpoints/step-00000006': no space left on dev")
        assert "the checkpoint of step 3 is complete: free some space, and the same command goes on" in done.stderr
        assert complete(disk / "out") == [3]
        filler.unlink()
        resumed = run(wanted)
        assert (resumed[1]["event"], resumed[1]["step"]) == ("resumed", 3)
        same(tmp_path / "whole", disk / "out")


def test_a_full_disk_at_the_result_keeps_the_last_checkpoint(tiny: Path, tmp_path: Path) -> None:  # noqa: F811
    values: dict[str, Any] = {"epochs": 2, "checkpoint_steps": 6, "keep_checkpoints": 1, "log_steps": 6}
    run(config(tiny, tmp_path, save_model_path=str(tmp_path / "whole"), **values))
    one = size(tmp_path / "whole/checkpoints/step-00000006")
    with small_disk(tmp_path / "small", f"{one * 40 // 1024}k") as disk:
        wanted = config(tiny, tmp_path, save_model_path=str(disk / "out"), **values)
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - one - 28672))
        done = subprocess.run(
            command_of(wanted, tmp_path), capture_output=True, text=True, env=os.environ, timeout=120, check=False
        )
        assert done.returncode == 1, done.stderr
        assert (
            done.stderr
            == f"error: {disk}/out: no space left on device; free some space, and the same command goes on\n"
        )
        assert not (disk / "out/complete.json").exists()
        assert complete(disk / "out") == [6]
        filler.unlink()
        assert run(wanted)[1] == {"event": "resumed", "step": 6}
        assert [line["step"] for line in metrics(disk / "out")] == [6]
        same(tmp_path / "whole", disk / "out")
