"""A run as its journal and folders record it, written by the real journal; and a way to call the command line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ftagent.cli import run as run_command_line
from ftagent.core import events
from ftagent.core.journal import Journal
from ftagent.core.run_folder import RunFolder
from ftagent.core.statistics import score_of
from ftagent.core.types import Execution, Feedback, Hypothesis, Score

ITEMS = 40


@dataclass(frozen=True)
class Answer:
    """What one command line gave back."""

    code: int
    out: str
    err: str


CommandLine = Callable[..., Answer]


@pytest.fixture
def ftagent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CommandLine:
    """Call the command line in an empty folder, with no settings but those of the test."""
    monkeypatch.chdir(tmp_path)
    for name in ("FT_LOG_PATH", "FTAGENT_DATA_MIRROR", "FT_FILE_PATH", "HF_HOME", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*words: str) -> Answer:
        capsys.readouterr()
        code = run_command_line([str(word) for word in words])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture
def finished_run(tmp_path: Path) -> RunFolder:
    """Three loops: one that improves, one that fails, one that improves on the first; the test was opened once."""
    return record_run(tmp_path / "log" / "first", finish=True)


@pytest.fixture
def open_run(tmp_path: Path) -> RunFolder:
    """The same run before its finish."""
    return record_run(tmp_path / "log" / "open", finish=False)


def record_run(path: Path, finish: bool, title: str = "Train longer") -> RunFolder:
    """Write a run as the loop would. `title` is the first hypothesis's, as an agent may word it."""
    folder = RunFolder(path)
    path.mkdir(parents=True)
    request = {"scenario": "llm", "base_model": "smollm2-135m", "benchmark": "rg:chain_sum", "limit": ITEMS}
    versions = {"ftagent": "0.1.0", "python": "3.11.7"}
    folder.write_json(folder.record, {"request": request, "versions": versions, "hardware": {"cpus": 2}})
    journal = Journal(folder.journal)
    for event in _baseline():
        journal.append(event)
    plans = ((0, None, title, 0.6), (1, 0, "Raise the learning rate", None), (2, 0, "More data", 0.9))
    for loop, parent, words, rate in plans:
        for event in _loop(folder, loop, parent, words, rate):
            journal.append(event)
    for event in _finish(folder) if finish else ():
        journal.append(event)
    journal.close()
    return folder


def score(split: str, rate: float) -> Score:
    """A score over ITEMS items of which the share `rate` is right."""
    right = round(rate * ITEMS)
    return score_of("accuracy", {f"{split}-{index}": float(index < right) for index in range(ITEMS)})


def _baseline() -> list[events.Event]:
    execution = Execution("predict", "ok", 2.5, exit_code=0, peak_mb=400.0)
    return [
        events.Created("llm", "accuracy", "maximize", 7, events.Limits(loop_n=3, timeout=3600.0), sealed=True),
        events.StageFinished(None, 0, "predict", "validation", execution),
        events.Scored(None, "validation", score("validation", 0.25)),
    ]


def _loop(folder: RunFolder, loop: int, parent: int | None, title: str, rate: float | None) -> list[events.Event]:
    text = f"learning_rate: 0.00{loop + 1}\nsteps: {10 * (loop + 1)}\n"
    file = folder.attempt(loop, 0) / "train.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    log = folder.running(loop) / "train.log"
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({"step": 1, "loss": 2.0}) + f"\nloop {loop} trains\n")
    digests = {"train.yaml": hashlib.sha256(text.encode()).hexdigest()}
    end = "ok" if rate is not None else "out_of_memory"
    idea = Hypothesis(title, "The loss was still falling.", parent, "draft" if parent is None else "improve",
                      "higher accuracy", {"steps": 10 * (loop + 1)})  # fmt: skip
    failure = "" if rate is not None else "train: out of memory: 3 GiB asked"
    scored = [] if rate is None else [events.Scored(loop, "validation", score("validation", rate))]
    decision = "accept" if rate is not None else "failed"
    losses = tuple((step, 2.0 / step) for step in range(1, 9)) if rate is not None else ()
    return [
        events.Proposed(loop, idea),
        events.Coded(loop, 0, digests),
        events.Built(loop),
        events.StageFinished(loop, 0, "full", None, Execution("train", end, 30.0, exit_code=0, peak_mb=900.0)),
        *scored,
        events.Ran(loop, failure, 31.0, losses),
        events.Reflected(loop, Feedback(decision, "as measured", ("loss fell",), "try more")),
    ]


def _finish(folder: RunFolder) -> list[events.Event]:
    (folder.best / "files").mkdir(parents=True)
    (folder.best / "adapter_config.json").write_text("{}")
    (folder.best / "files" / "train.yaml").write_text((folder.attempt(2, 0) / "train.yaml").read_text())
    return [
        events.TestOpened("finish", (2,)),
        events.Scored(None, "test", score("test", 0.2)),
        events.Scored(2, "test", score("test", 0.85)),
        events.Selected(2, "improved", "test", 1e-6, 1, "McNemar exact on 40 test items"),
        events.Finished("completed"),
    ]
