"""Commands start fast: what they import, and how long the cheapest takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import record_run

HEAVY = {
    "torch", "transformers", "peft", "trl", "accelerate", "litellm", "openai", "datasets", "optuna", "docker", "ray",
    "reasoning_gym", "matplotlib", "numpy", "pandas", "huggingface_hub", "math_verify", "sklearn", "sympy",
}  # fmt: skip
SCRIPT = """
import sys
from ftagent.cli import run
code = run(sys.argv[1:])
print("IMPORTED", *sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


def imported(folder: Path, *words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split("IMPORTED")[1].split())


@pytest.mark.parametrize(
    "words",
    [["--help"], ["version"], ["runs"], ["show", "a"], ["status", "a"], ["logs", "a"], ["run", "--help"],
     ["prune", "a"], ["journal", "repair", "a"], ["compare", "a", "a"]],
    ids=" ".join,
)  # fmt: skip
def test_reading_commands_import_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    record_run(tmp_path / "log" / "a", finish=True)
    (tmp_path / ".env").write_text("FT_LOG_PATH=log\n")
    found = imported(tmp_path, *words)
    assert found & HEAVY == set()
    assert found & {"rich", "pydantic_settings", "loguru"} == set()


@pytest.mark.parametrize("words", [["config", "show"], ["scenarios"], ["models"]], ids=" ".join)
def test_listing_commands_import_no_ml_library(tmp_path: Path, words: list[str]) -> None:
    assert imported(tmp_path, *words) & HEAVY == set()
