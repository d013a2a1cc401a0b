"""The command line as a user has it, in a folder of its own, on the real small model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FTAGENT = [sys.executable, "-m", "ftagent"]


@pytest.fixture(scope="session")
def environ(pytestconfig: pytest.Config) -> dict[str, str]:
    """The variables of every command here: models are converted once and kept in pytest's cache."""
    cache = pytestconfig.cache
    assert cache is not None
    return {**os.environ, "FT_FILE_PATH": str(cache.mkdir("ftagent_files"))}


@pytest.fixture
def ftagent(environ: dict[str, str], tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Run `ftagent ARGUMENTS --json` in an empty folder; returns the JSON documents that it printed."""

    def run(*arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
        command = [*FTAGENT, *map(str, arguments), "--json"]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=900)
        assert done.returncode == code, done.stderr
        lines = done.stdout.splitlines()
        return [json.loads(line) for line in lines] if arguments[0] in ("run", "resume") else [json.loads(done.stdout)]

    return run
