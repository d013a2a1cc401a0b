"""`ftagent memory`: what it lists, what it forgets, and that a test value is never among it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftagent.agents.memory import count, memory_path, remember
from ftagent.core.run_folder import RunFolder

from .conftest import CommandLine, record_run
from .test_commands import check


@pytest.fixture
def filled(finished_run: RunFolder, tmp_path: Path) -> Path:
    """The memory of two runs, in the default place."""
    path = memory_path(tmp_path / "ftagent_files")
    remember(path, finished_run.state(), finished_run)
    other = record_run(tmp_path / "log" / "second", finish=False, title="Change the \x1b[2Jtokenizer")
    remember(path, other.state(), other)
    return path


def test_lessons_are_listed_newest_first_and_found_by_words(ftagent: CommandLine, filled: Path) -> None:
    answer = ftagent("memory", "list")
    lines = answer.out.splitlines()
    assert answer.code == 0
    assert len(lines) == 6
    assert "rg:chain_sum with smollm2-135m, run second loop 2: More data" in lines[0]
    assert "accuracy +0.350 against the baseline" in lines[-1]
    assert "6 of 6 lessons in ftagent_files/memory.sqlite" in answer.err
    assert "\x1b" not in answer.out
    found = ftagent("memory", "list", "--limit", "1", "tokenizers", "AND", '"').out.splitlines()
    assert len(found) == 1
    assert "tokenizer" in found[0]


def test_json_follows_its_schema_and_has_no_test_value(ftagent: CommandLine, filled: Path) -> None:
    text = ftagent("memory", "list", "--json").out
    document = check("memory_list", text)
    assert (document["total"], document["on"], len(document["lessons"])) == (6, True, 6)
    assert document["lessons"][1]["effect"] is None
    assert document["lessons"][1]["failure"] == "train: out of memory: 3 GiB asked"
    # The run's test scores are 0.85 and 0.2.
    assert "0.85" not in text
    assert b"0.85" not in filled.read_bytes()
    assert "McNemar" not in text


def test_an_empty_memory_and_one_that_is_off(
    ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTAGENT_MEMORY", "False")
    answer = ftagent("memory", "list")
    assert (answer.code, answer.out) == (0, "")
    assert "FTAGENT_MEMORY is False" in answer.err
    assert check("memory_list", ftagent("memory", "list", "--json").out)["on"] is False
    assert "nothing to forget" in ftagent("memory", "clear", "--yes").out
    assert list(tmp_path.iterdir()) == []


def test_clearing_asks_and_may_be_for_one_run(ftagent: CommandLine, filled: Path) -> None:
    refused = ftagent("memory", "clear")
    assert (refused.code, count(filled)) == (2, 6)
    assert "add --yes" in refused.err
    assert ftagent("memory", "clear", "--run", "second", "--yes").out == "forgot 3 lessons\n"
    assert ftagent("memory", "clear", "--run", "second").out.startswith("nothing to forget of run second")
    assert ftagent("memory", "clear", "--run", "log/first", "--yes").out == "forgot 3 lessons\n"


def test_a_damaged_memory_is_said_and_set_aside(ftagent: CommandLine, filled: Path) -> None:
    filled.write_bytes(b"no database" * 100)
    answer = ftagent("memory", "list")
    assert (answer.code, answer.out) == (0, "")
    assert "is damaged" in answer.err
    assert filled.with_name("memory.sqlite.damaged-1").exists()
