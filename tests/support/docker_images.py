"""What tests on a Docker Engine use: an image of this machine's own Python, and an engine that they may kill."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import site
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import required
from ftagent.environments.docker import DockerEnvironment, DockerOptions
from ftagent.environments.docker_engine import Engine, address, why_unreachable
from ftagent.environments.docker_image import ImageSource

PYTHON = "ftagent-test/python:3.11"
TOOL = Path(__file__).parents[3] / "shared" / "tools" / "docker-engine"


@functools.cache
def why_no_image() -> str:
    """Why there is no image PYTHON; empty when it is there, imported first where that is possible."""
    engine = Engine(address(os.environ))
    try:
        if engine.image(PYTHON) is None and TOOL.exists():
            subprocess.run([TOOL, "image", PYTHON], check=True, capture_output=True, timeout=300)
        return "" if engine.image(PYTHON) is not None else f"no image {PYTHON}"
    finally:
        engine.close()


def need_image() -> None:
    """Skip the test without image PYTHON, or fail it where an engine is required."""
    if why := why_no_image():
        (pytest.fail if "docker" in required() else pytest.skip)(why)


def environment(**options: object) -> DockerEnvironment:
    """On the session's engine, with image PYTHON unless `options` name another."""
    return DockerEnvironment(DockerOptions(**{"source": ImageSource(PYTHON), **options}))  # type: ignore[arg-type]


def host_packages() -> Path:
    """Where this Python's packages lie."""
    return Path(site.getsitepackages()[0])


def owners(folder: Path) -> set[int]:
    """Of a folder and all that is in it, links themselves."""
    return {os.lstat(path).st_uid for path in [folder, *folder.rglob("*")]}


def processes(word: str) -> list[int]:
    """Processes, but for this one, with `word` in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if word.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


class OwnEngine:
    """A Docker Engine of its own, to be killed.

    In a network namespace of its own: two engines would fight over one bridge, and the loser's containers lose it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            "unshare", "--net", "dockerd", "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec",
            "--pidfile", f"{self.folder}/docker.pid", "--host", self.address,
            "--bridge", "none", "--iptables=false", "--ip6tables=false",
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while why_unreachable(self.address):
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """As a crash would end it. Its containers live on, which it kills when it is back."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        # It took containerd with it, whose number would look alive until somebody collects it.
        (self.folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """End it and every container that a crash of it left."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)
        for pid in processes(str(self.folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # A killed engine leaves its folders mounted onto themselves.
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if (place := line.split()[1]).startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


@contextlib.contextmanager
def own_engine() -> Iterator[OwnEngine]:
    """An engine with image PYTHON in it, stopped and deleted afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ftagent-engine-"))
    engine = OwnEngine(folder)
    try:
        engine.start()
        with subprocess.Popen(["docker", "save", PYTHON], stdout=subprocess.PIPE) as saved:
            subprocess.run(["docker", "-H", engine.address, "load", "-q"], stdin=saved.stdout, check=True, timeout=120)
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(folder, ignore_errors=True)
