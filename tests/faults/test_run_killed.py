"""Row 1: kill -9 at every boundary of the journal. Nothing finished is lost or done twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ftagent.core.journal import read_records
from ftagent.environments.local import LocalEnvironment
from support import drive, noop, story
from support.children import in_a_child


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of three loops with a real command in each."""
    folder = tmp_path_factory.mktemp("whole")
    drive(folder / "run", noop(folder, stages=1), environment=LocalEnvironment())
    return folder / "run"


@pytest.mark.parametrize("kind", ["before", "after", "torn"])
def test_a_run_killed_at_any_append_resumes_to_the_same_journal(whole: Path, tmp_path: Path, kind: str) -> None:
    events = len(read_records(whole / "journal.jsonl"))
    assert events > 25
    for sequence in range(1, events + 1):
        path = tmp_path / f"{kind}-{sequence}"

        def session(path: Path = path) -> object:
            return drive(path, noop(tmp_path, stages=1), environment=LocalEnvironment())

        status = in_a_child(session, f"{kind}:{sequence}")
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL
        survived = story(path) if (path / "journal.jsonl").exists() else []
        assert len(survived) == sequence - (kind != "after")
        assert in_a_child(session) == 0
        assert story(path) == story(whole), f"killed {kind} append {sequence}"


def test_a_run_killed_again_and_again_still_ends(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"

    def session() -> object:
        return drive(path, noop(tmp_path, stages=1), environment=LocalEnvironment())

    for sequence in range(1, len(read_records(whole / "journal.jsonl")) + 1):
        in_a_child(session, f"after:{sequence}")
    assert in_a_child(session) == 0
    assert story(path) == story(whole)
