"""What the machine says of itself, asked through a program in nvidia-smi's place where there is no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftagent.core.context import Gpu, Hardware
from ftagent.core.hardware import available_memory_mb, detect, gpus, total_memory_mb
from ftagent.environments.registry import checks


def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


def test_gpus_are_those_that_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo '0, NVIDIA A10G, 23028'; echo '1, NVIDIA GB10, [N/A]'")
    listed = (Gpu("0", "NVIDIA A10G", 23028), Gpu("1", "NVIDIA GB10", 0))
    assert gpus() == detect().gpus == listed
    assert Hardware(2, 2048, listed).describe().endswith("NVIDIA A10G (23028 MiB), NVIDIA GB10")
    found = next(check for check in checks(tmp_path) if check.name == "GPU")
    assert (found.ok, found.detail) == (True, "2 NVIDIA; 0: NVIDIA A10G (23028 MiB), 1: NVIDIA GB10")


def test_a_driver_that_shows_no_gpu_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo 'NVIDIA-SMI has failed'; exit 9")
    assert gpus() == ()
    found = next(check for check in checks(tmp_path) if check.name == "GPU")
    assert not found.ok
    assert "run nvidia-smi" in found.hint


def test_without_nvidia_smi_device_files_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert [gpu.id for gpu in gpus(tmp_path)] == ["2", "10"]


def test_available_memory_is_some_of_the_total(tmp_path: Path) -> None:
    assert 0 < available_memory_mb() <= total_memory_mb()
    assert available_memory_mb(tmp_path / "absent") == 0
    (tmp_path / "old").write_text("MemTotal:  2048 kB\n")
    assert available_memory_mb(tmp_path / "old") == 0
