"""A run on disk: where each thing lies, who holds it, how it is found."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ftagent.core.errors import RequestError, RunLocked
from ftagent.core.files import atomic_write, folder_of, make_folder, storage_error
from ftagent.core.journal import read_records
from ftagent.core.state import State, fold
from ftagent.core.types import CallPlace, StepName

STEP_FOLDERS: dict[StepName, str] = {
    "propose": "direct_exp_gen",
    "code": "coding",
    "run": "running",
    "feedback": "feedback",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_WORKSPACE = re.compile(r"workspaces/(?:baseline|Loop_(?P<loop>\d+))/(?:full|debug_(?P<attempt>\d+))")


@dataclass(frozen=True)
class Holder:
    """The process that holds a run."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


class RunFolder:
    """The folder of one run. Making one of these touches nothing on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def record(self) -> Path:
        """run.json: what was asked and where."""
        return self.path / "run.json"

    @property
    def best(self) -> Path:
        """The selected model; a link to `best_overall_model` in a run with a plan."""
        return self.path / "best"

    @property
    def best_overall_model(self) -> Path:
        return self.path / "best_overall_model"

    @property
    def controls(self) -> Path:
        """Runs of the control strategies."""
        return self.path / "controls"

    @property
    def workspaces(self) -> Path:
        return self.path / "workspaces"

    def step(self, loop: int, step: StepName, name: str = "") -> Path:
        """The folder of a step, or the file `name` in it."""
        return self.path / f"Loop_{loop}/{STEP_FOLDERS[step]}/{name}"

    def attempt(self, loop: int, attempt: int) -> Path:
        """The files of one coding attempt."""
        return self.path / f"Loop_{loop}/{STEP_FOLDERS['code']}/attempt_{attempt}"

    def running(self, loop: int | None, name: str = "") -> Path:
        """Logs, metrics and predictions of an experiment, `baseline/` for the base model; or the file `name` in it."""
        return self.path / f"baseline/{name}" if loop is None else self.step(loop, "run", name)

    def workspace(self, loop: int | None, debug_attempt: int | None = None) -> Path:
        subject = "baseline" if loop is None else f"Loop_{loop}"
        leaf = "full" if debug_attempt is None else f"debug_{debug_attempt}"
        return self.path / f"workspaces/{subject}/{leaf}"

    @staticmethod
    def place_of(workspace: Path) -> CallPlace:
        """Where in its run a workspace belongs: the inverse of `workspace`. Raises ValueError for another folder."""
        found = _WORKSPACE.fullmatch("/".join(workspace.parts[-3:]))
        if found is None:
            raise ValueError(f"{workspace} is no workspace of a run")
        loop = None if found["loop"] is None else int(found["loop"])
        return CallPlace(loop, "run") if found["attempt"] is None else CallPlace(loop, "code", int(found["attempt"]))

    def write_json(self, path: Path, document: Any) -> None:
        """Write a dataclass or plain JSON types, whole or not at all. Raises StorageFull."""
        text = msgspec.json.format(msgspec.json.encode(document), indent=1)
        folder = folder_of(path)
        try:
            make_folder(folder)
        except OSError as error:
            raise storage_error(folder, error) or error from error
        atomic_write(path, text + b"\n")

    def read_record(self) -> dict[str, Any]:
        """run.json. Raises RequestError when this is no run folder or the file does not read."""
        try:
            record: dict[str, Any] = json.loads(self.record.read_text())
        except FileNotFoundError as error:
            raise RequestError(f"{self.path}: no run here (run.json is missing)") from error
        except (OSError, ValueError) as error:
            raise RequestError(f"{self.record}: cannot be read ({error})") from error
        return record

    def state(self) -> State:
        """The fold of the journal as it stands. Raises RequestError, JournalDamaged."""
        try:
            return fold(self.path, read_records(self.journal) if self.journal.exists() else [])
        except ValueError as error:
            raise RequestError(f"{self.journal}: contradicts itself ({error})") from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this run until the block ends or this process dies, however it dies.

        Raises RunLocked naming the holder when another process has it.
        """
        path = self.path / "run.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunLocked(f"{self.path}: held by {_read_holder(path) or 'another process'}") from error
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def holder(self) -> Holder | None:
        """Who holds the run now, if anyone."""
        path = self.path / "run.lock"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(path) or Holder(0, "an unknown host", "an unknown time")
        finally:
            os.close(descriptor)
        return None


def create(log_dir: Path, name: str | None = None) -> RunFolder:
    """A new, empty run folder that no other start can have.

    A taken name gets `-2`, `-3`, …. Raises RequestError for a name that is no plain file name and for a log
    folder that cannot be written.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise RequestError(f"--name {name!r}: letters, digits, '.', '_' and '-' only, at most 100")
    base = name or datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = log_dir / (base if number == 1 else f"{base}-{number}")
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return RunFolder(path)
            number += 1
    except OSError as error:
        raise RequestError(f"{log_dir}: the log folder cannot be written ({error.strerror})") from error


def all_runs(log_dir: Path) -> list[RunFolder]:
    """The runs below `log_dir`, oldest first."""
    try:
        folders = [entry for entry in log_dir.iterdir() if (entry / "run.json").is_file()]
    except OSError:
        return []
    return [RunFolder(path) for path in sorted(folders, key=lambda path: (path / "run.json").stat().st_mtime_ns)]


def find(log_dir: Path, reference: str) -> RunFolder:
    """The run that a path, a name, a unique prefix or `last` means. Raises RequestError naming the choices."""
    if (Path(reference) / "run.json").is_file():
        return RunFolder(Path(reference))
    runs = all_runs(log_dir)
    if reference == "last" and runs:
        return runs[-1]
    matches = [run for run in runs if run.name == reference] or [run for run in runs if run.name.startswith(reference)]
    if len(matches) == 1:
        return matches[0]
    some = ", ".join(run.name for run in (matches or runs)[-5:]) or "none"
    what = f"{len(matches)} runs match" if matches else "no such run"
    raise RequestError(f"{reference!r}: {what} in {log_dir}; there: {some}")


def _read_holder(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
