"""`ftagent replay`: a recorded run again, and what is told when it is not the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from .conftest import CommandLine


@pytest.fixture
def run(ftagent: CommandLine, tmp_path: Path) -> Path:
    """A finished run of the no-op scenario with a real command in each loop."""
    answer = ftagent("run", "--scenario", "noop", "--loop-n", "2", "-o", "stages=1", "--name", "first", "--json")
    assert answer.code == 0, answer.err
    return tmp_path / "log" / "first"


def test_an_untouched_run_replays_equal_without_executing(ftagent: CommandLine, run: Path) -> None:
    answer = ftagent("replay", "first")
    assert answer.code == 0, answer.out + answer.err
    assert "equal" in answer.out.splitlines()[-1]


def test_it_replays_equal_when_the_commands_are_executed_too(ftagent: CommandLine, run: Path) -> None:
    answer = ftagent("replay", "first", "--execute", "--json")
    document = json.loads(answer.out)
    assert document["equal"], document
    assert document["executed"]
    assert document["loops"] == 2


def test_a_finished_run_that_was_extended_replays_equal(ftagent: CommandLine, run: Path) -> None:
    assert ftagent("resume", "first", "--loop-n", "3").code == 0
    document = json.loads(ftagent("replay", "first", "--json").out)
    assert (document["equal"], document["loops"]) == (True, 3), document


def test_a_run_that_was_gone_back_in_and_stopped_replays_without_opening_the_test(
    ftagent: CommandLine, run: Path, tmp_path: Path
) -> None:
    assert ftagent("resume", "first", "--from", "1:run", "--step-n", "1").code == 3
    answer = ftagent("replay", "first", "--out", str(tmp_path / "again"), "--json")
    assert json.loads(answer.out)["equal"], answer.out
    journal = (tmp_path / "again" / "journal.jsonl").read_text()
    assert "test_opened" not in journal


def test_the_first_difference_of_a_result_is_told(ftagent: CommandLine, run: Path) -> None:
    # The same run with other items scores differently from its first measurement on.
    record = json.loads((run / "run.json").read_text())
    record["request"]["options"]["items"] = "60"
    (run / "run.json").write_text(json.dumps(record))
    answer = ftagent("replay", "first")
    assert answer.code == 1
    assert "first difference: " in answer.out
    assert "recorded:" in answer.out
    assert "loop 0: scored score" in answer.out


def test_a_run_with_nothing_recorded_and_a_taken_folder_are_refused(
    ftagent: CommandLine, run: Path, tmp_path: Path
) -> None:
    taken = ftagent("replay", "first", "--out", str(tmp_path))
    assert taken.code == 2
    assert "is there already" in taken.err
    (run / "journal.jsonl").write_bytes(b"")
    empty = ftagent("replay", "first")
    assert empty.code == 2
    assert "nothing is recorded yet" in empty.err


def test_files_that_were_refused_unexecuted_replay_equal(
    ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the recorded environment could import is not recorded; that something was missing is.
    replies = [
        {"role": "propose", "text": '{"title": "t", "reason": "r", "kind": "draft"}'},
        {
            "role": "code",
            "text": '{"use_template": true}\n\n### file: a.py\n```\nimport json, nowhere_to_be_found\n```\n',
        },
        {"role": "repair", "text": "### file: a.py\n```\nimport json\n```\n"},
        {"role": "reflect", "text": '{"observations": [], "hypothesis_held": "unclear", "next": "more"}'},
    ]
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"replies": replies}))
    monkeypatch.setenv("CHAT_MODEL", f"scripted/{tmp_path / 'model.yaml'}")
    monkeypatch.setenv("FTAGENT_YES_RUN_UNSANDBOXED", "true")
    done = ftagent("run", "--scenario", "noop", "--agent", "llm", "--loop-n", "1", "-o", "stages=1", "--name", "m")
    assert done.code == 0, done.err
    journal = (tmp_path / "log/m/journal.jsonl").read_text()
    assert journal.count("a.py:1: no module 'nowhere_to_be_found' in this environment") == 2  # as detail and as tail
    answer = ftagent("replay", "m", "--json")
    assert json.loads(answer.out)["equal"], answer.out
