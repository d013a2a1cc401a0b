"""The conda program of this machine (conda, mamba or micromamba) and what it is asked to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ftagent.core.errors import RequestError

NAMES = ("conda", "mamba", "micromamba")
LOCATIONS = ("CONDA_EXE", "MAMBA_EXE")
"""Variables that a shell set up by one of them holds, also where it is no command on PATH."""
PASSED_PREFIXES = ("CONDA_", "MAMBA_", "PIP_", "UV_", "XDG_")
PASSED = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "NETRC", "USER", "LOGNAME")
"""Beside what every command gets. No keys of language models: installing runs code of packages."""
QUESTION_SECONDS = 120.0


@dataclass(frozen=True)
class Program:
    """One of `NAMES` and where it lies."""

    name: str
    path: Path

    def create(self, prefix: Path, spec: Path, explicit: bool) -> tuple[str, ...]:
        """The command that makes an environment in `prefix`, which must not exist; it asks nothing."""
        verb = ("create", "--yes") if explicit or self.name == "micromamba" else ("env", "create")
        return (str(self.path), *verb, "--quiet", "--prefix", str(prefix), "--file", str(spec))

    def export(self, prefix: Path) -> tuple[str, ...]:
        """The command that prints a specification with the exact version of everything in `prefix`."""
        return (str(self.path), "env", "export", "--prefix", str(prefix))

    def version(self) -> str:
        """What it says of itself, on one line. Raises RequestError when it does not work."""
        return self._ask("--version").strip().removeprefix(f"{self.name} ").partition("\n")[0]

    def environments(self) -> tuple[Path, ...]:
        """The folders of all environments that it knows. Raises RequestError when it does not say."""
        try:
            return tuple(map(Path, json.loads(self._ask("env", "list", "--json"))["envs"]))
        except (ValueError, KeyError, TypeError) as error:
            raise RequestError(f"{self.path} env list --json: no list of environments ({error})") from error

    def _ask(self, *arguments: str) -> str:
        command = [str(self.path), *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=QUESTION_SECONDS, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RequestError(f"{self.path} does not run: {error}") from error
        if done.returncode:
            raise RequestError(f"{' '.join(command)}: exit code {done.returncode}: {reason(done.stderr)}")
        return done.stdout


def find(host: Mapping[str, str]) -> Program:
    """The first of `NAMES` on PATH, else where a variable says. Raises RequestError when there is none."""
    for name in NAMES:
        path = shutil.which(name, path=host.get("PATH", os.defpath))
        if path:
            return Program(name, Path(path).absolute())
    for variable in LOCATIONS:
        path = shutil.which(host.get(variable, ""))
        if path and Path(path).name in NAMES:
            return Program(Path(path).name, Path(path).absolute())
    raise RequestError(
        "--env conda: no conda, mamba or micromamba is on PATH; install Miniforge (https://conda-forge.org/download) "
        "or use --env local"
    )


def variables(host: Mapping[str, str]) -> dict[str, str]:
    """What the program sees of the host: its own settings, proxies, and that nobody can answer questions.

    Packages are never linked softly: the cache of packages is not part of a sandbox's view.
    """
    passed = {
        name: value
        for name, value in host.items()
        if name.startswith(PASSED_PREFIXES) or name in PASSED or name.lower() in PASSED
    }
    fixed = {"CONDA_ALWAYS_YES": "true", "MAMBA_ALWAYS_YES": "true", "CONDA_ALWAYS_SOFTLINK": "false",
             "CONDA_ALLOW_SOFTLINKS": "false", "MAMBA_ALLOW_SOFTLINKS": "false", "CONDA_REPORT_ERRORS": "false",
             "CONDA_NOTIFY_OUTDATED_CONDA": "false", "PIP_NO_INPUT": "1"}  # fmt: skip
    return {**passed, "HOME": str(Path.home()), "TMPDIR": host.get("TMPDIR") or "/tmp", **fixed}


def reason(output: str) -> str:
    """One line of at most 400 characters: from the first line that tells an error on, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if _tells(line)]
    told = " ".join(lines[starts[0] :] if starts else lines[-1:])
    return (told if len(told) <= 400 else told[:397] + "...") or "it printed nothing"


def _tells(line: str) -> bool:
    first = line.partition(" ")[0].rstrip(":").lower()
    names = ("error", "notfound", "invalidchannel", "critical", "[errno")
    return any(first.endswith(name) or first.startswith(name) for name in names)
