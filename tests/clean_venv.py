"""A virtual environment without ftagent that borrows every other package from the one that runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class CleanVenv:
    """Its interpreter sees its own site-packages before the borrowed ones, and nothing of PYTHONPATH."""

    path: Path

    @classmethod
    def make(cls, path: Path) -> CleanVenv:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(path)], check=True, timeout=120)
        venv = cls(path)
        # A .pth file adds the folder without reading the .pth files in it: an editable ftagent stays invisible.
        (venv.site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = venv.bin / "pip"
        pip.write_text(f'#!/bin/sh\nexec "{venv.bin / "python"}" -m pip "$@"\n')
        pip.chmod(0o755)
        return venv

    @property
    def bin(self) -> Path:
        return self.path / "bin"

    @property
    def site_packages(self) -> Path:
        return next((self.path / "lib").glob("python3*/site-packages"))

    def variables(self) -> dict[str, str]:
        """The environment of its commands: pip offline, without dependencies, with the borrowed build backend."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        return {
            **kept,
            "PATH": f"{self.bin}{os.pathsep}{kept.get('PATH', '')}",
            "VIRTUAL_ENV": str(self.path),
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one as: isolation 0
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def run(self, *command: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of its programs. Raises AssertionError with the output when it fails."""
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]], cwd=cwd, env=self.variables(), capture_output=True, text=True,
            timeout=280,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done
