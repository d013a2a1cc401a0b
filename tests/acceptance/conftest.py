"""Long proofs. Each writes what it measured into docs/acceptance/, which is committed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(__file__).parent.parent.parent / "docs" / "acceptance"


@pytest.fixture
def prove(tmp_path: Path, pytestconfig: pytest.Config) -> Callable[..., dict[str, Any]]:
    """Run `ftagent run ARGUMENTS` to its end, keep its finished document under docs/acceptance/NAME.json."""

    def run(name: str, *arguments: str) -> dict[str, Any]:
        cache = pytestconfig.cache
        assert cache is not None
        environ = {**os.environ, "FT_FILE_PATH": str(cache.mkdir("ftagent_files"))}
        command = [sys.executable, "-m", "ftagent", "run", *arguments, "--name", name, "--json"]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        machine = {
            "cores": len(os.sched_getaffinity(0)),
            "system": platform.system(),
            "python": platform.python_version(),
        }
        RESULTS.mkdir(exist_ok=True)
        record = {"command": "ftagent run " + " ".join(arguments), "machine": machine, "finished": document}
        (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        return document

    return run
