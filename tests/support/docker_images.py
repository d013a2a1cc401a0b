"""The image that tests on a Docker Engine use: made from this machine's own Python, nothing is downloaded."""

from __future__ import annotations

import shutil
import site
import subprocess
from pathlib import Path

PYTHON = "ftagent-test/python:3.11"
TOOL = Path(__file__).parents[3] / "shared" / "tools" / "docker-engine"


def why_no_image() -> str:
    """Why there is no image PYTHON; empty when it is there, imported first where it can be."""
    if shutil.which("docker") is None and not TOOL.exists():
        return f"no image {PYTHON}, and no tool that makes it"
    from ftagent.environments.docker_engine import Engine, address
    import os

    engine = Engine(address(os.environ))
    try:
        if engine.image(PYTHON) is not None:
            return ""
        if TOOL.exists():
            subprocess.run([TOOL, "image", PYTHON], check=True, capture_output=True, timeout=300)
        return "" if engine.image(PYTHON) is not None else f"no image {PYTHON}"
    finally:
        engine.close()


def host_packages() -> Path:
    """Where this Python's packages lie."""
    return Path(site.getsitepackages()[0])
