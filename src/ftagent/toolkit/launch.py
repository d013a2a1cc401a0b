"""Start several processes of this machine that train one model together.

On several machines `torchrun` and `accelerate launch` do that, with `-m ftagent.toolkit.train config.yaml`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.errors import Interrupted, StorageFull, ToolkitError

_GRACE_SECONDS = 10.0
"""How long the others may go on after one failed: it may be that they are about to say why."""

Record = Callable[[dict[str, Any]], None]


def launch(config: TrainConfig, processes: int, fresh: bool, record: Record) -> None:
    """Train in `processes` processes; each record of the first goes to `record`.

    Ctrl-C once ends them after their step, twice at once. Raises what the training raised: ToolkitError, StorageFull,
    Interrupted.
    """
    import yaml

    values = {**config.model_dump(mode="json"), "model_name": ""}
    with tempfile.TemporaryDirectory(prefix="ftagent-") as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        words = [sys.executable, "-m", "ftagent.toolkit.train", str(path), *(["--fresh"] if fresh else [])]
        with _started(words, processes) as children, _forwarding(children):
            readers = [_reading(child) for child in children]
            watchers = [threading.Thread(target=_watch, args=(child, children)) for child in children]
            for watcher in watchers:
                watcher.start()
            _follow(children[0], record)
            for thread in (*watchers, *(reader for reader, _ in readers)):
                thread.join()
        _raise_first(children, [lines for _, lines in readers])


@contextlib.contextmanager
def _started(words: Sequence[str], processes: int) -> Iterator[list[subprocess.Popen[str]]]:
    """The processes, in sessions of their own, so that Ctrl-C reaches them through us alone. None is left behind."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = max(1, (os.cpu_count() or 1) // processes)
    children: list[subprocess.Popen[str]] = []
    try:
        for rank in range(processes):
            environment = {
                "OMP_NUM_THREADS": str(threads), **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }  # fmt: skip
            out = subprocess.DEVNULL if rank else subprocess.PIPE
            children.append(
                subprocess.Popen(
                    words, env=environment, stdout=out, stderr=subprocess.PIPE, text=True, start_new_session=True
                )
            )
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()


@contextlib.contextmanager
def _forwarding(children: Sequence[subprocess.Popen[str]]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def forward(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for child in children:
            child.send_signal(signal.SIGINT)

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)  # rather than at once, which would leave the children behind

    before = {number: signal.signal(number, act) for number, act in ((signal.SIGINT, forward), (signal.SIGTERM, end))}
    try:
        yield
    finally:
        for number, act in before.items():
            signal.signal(number, act)


def _follow(child: subprocess.Popen[str], record: Record) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        # Libraries print, too; what is no object is none of ours.
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                record(value)


def _reading(child: subprocess.Popen[str]) -> tuple[threading.Thread, list[str]]:
    """What `child` writes to stderr, and the thread that reads it: a full pipe would stop the child."""
    lines: list[str] = []

    def read() -> None:
        assert child.stderr is not None
        with child.stderr:
            lines.extend(line.rstrip("\n") for line in child.stderr)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return reader, lines


def _watch(child: subprocess.Popen[str], children: Sequence[subprocess.Popen[str]]) -> None:
    """Once `child` failed, the others wait for it in vain."""
    if child.wait() == 0:
        return
    for other in children:
        try:
            other.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            other.kill()


def _raise_first(children: Sequence[subprocess.Popen[str]], errors: Sequence[Sequence[str]]) -> None:
    """Raise the error of the first process that tells one."""
    failed = [index for index, child in enumerate(children) if child.returncode]
    kinds = {kind.exit_code: kind for kind in (ToolkitError, StorageFull, Interrupted)}
    for index in failed:
        told = [line.removeprefix("error: ") for line in errors[index] if line.startswith("error: ")]
        if told:
            raise kinds.get(children[index].returncode, ToolkitError)(told[-1])
    if failed:
        last = next((line for line in reversed(errors[failed[0]]) if line.strip()), "it said nothing")
        raise ProcessFailed(f"process {failed[0]} ended with exit code {children[failed[0]].returncode}: {last}")


class ProcessFailed(ToolkitError):
    """One of the processes died; the checkpoints are as they were."""

    exit_code = 1
