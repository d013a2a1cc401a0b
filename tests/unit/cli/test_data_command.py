"""`ftagent data check` and `ftagent data convert`: exit codes, what they print, and their JSON."""

from __future__ import annotations

import json
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from ftagent.cli.data_report import bar, show
from ftagent.toolkit.data.check import check
from ftagent.toolkit.data.lengths import Characters

from .conftest import CommandLine

GOOD = {"messages": [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "This."}]}
EVIL = {"messages": [{"role": "user\x1b[2J[red]", "content": "x"}]}


def document(text: str, schema: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    jsonschema.validate(
        found,
        json.loads(files("ftagent.cli").joinpath("schemas", f"{schema}.json").read_text()),
        cls=jsonschema.Draft202012Validator,
    )
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(GOOD) + "\n")
    return path


def test_check_of_a_clean_file(ftagent: CommandLine, data: Path) -> None:
    answer = ftagent("data", "check", str(data))
    assert (answer.code, answer.err) == (0, "")
    assert "1 row of messages" in answer.out
    assert "no faults" in answer.out
    found = document(ftagent("data", "check", str(data), "--json").out, "data_check")
    assert (found["ok"], found["rows"], found["unit"]) == (True, 1, "characters")
    assert found["lengths"] == {"least": 16, "median": 16, "p90": 16, "most": 16, "total": 16}


def test_check_of_a_faulty_file_lists_some_and_counts_all(ftagent: CommandLine, data: Path) -> None:
    data.write_text((json.dumps(GOOD) + "\n") * 1200 + json.dumps(EVIL) + "\n{\n")
    answer = ftagent("data", "check", str(data), "--faults", "2")
    assert (answer.code, answer.err) == (1, "")
    assert "1201 faults in 1201 rows: 1199 duplicate, 1 role, 1 syntax" in answer.out
    assert answer.out.count("same as line 1") == 2
    assert "and 1199 more" in answer.out
    answer = ftagent("data", "check", str(data), "--json")
    found = document(answer.out, "data_check")
    assert (answer.code, found["ok"], found["fault_count"], len(found["faults"])) == (1, False, 1201, 1000)
    assert (found["rows"], found["unreadable"]) == (1200, 2)


def test_what_a_file_says_does_not_steer_the_terminal(data: Path) -> None:
    data.write_text(json.dumps(GOOD) + "\n" + json.dumps(EVIL) + "\n")
    out = StringIO()
    show(check(data, Characters()), 20, Console(file=out, width=100, force_terminal=False))
    assert "\x1b" not in out.getvalue()
    assert "[red]" in out.getvalue()
    assert max(len(line) for line in out.getvalue().splitlines()) <= 100


def test_files_of_a_folder_are_named_without_it(ftagent: CommandLine, tmp_path: Path) -> None:
    row = json.dumps({"prompt": "a", "completion": "b"}) + "\n"
    for name in ("[red]a.jsonl", "b.jsonl"):
        (tmp_path / "folder" / "[bold]").mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / "[bold]" / name).write_text(row)
    answer = ftagent("data", "check", "folder")
    assert answer.code == 1
    assert "\n[bold]/b.jsonl:1  duplicate  same as [bold]/[red]a.jsonl:1" in answer.out


def test_bars_are_proportional_and_never_hide_a_row() -> None:
    assert [len(bar(count, 1000)) for count in (1000, 500, 1, 0)] == [40, 20, 1, 0]
    assert bar(1, 1000) == "▏"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["check", "none.jsonl"], "none.jsonl: cannot be read: No such file or directory"),
        (["check", "data.jsonl", "--split", "test"], "whose only split is train"),
        (["check", "data.jsonl", "--split", "train[1"], "split 'train[1': not a split; write train, train[:100]"),
        (["check", "data.jsonl", "--from", "x"], "--from x: no such format; there are conversations, "),
        (["check", "data.jsonl", "--max-length", "5"], "--max-length counts tokens: add --model"),
        (["check", "data.jsonl", "--against", "none.csv"], "none.csv: cannot be read"),
        (["convert", "data.jsonl", "b.txt"], "b.txt: the kind of file is not known; name it .json"),
        (["convert", "data.jsonl", "b.json", "--to", "x"], "--to x: no such format"),
        (["convert", "data.jsonl", "b.json", "--to", "preference"], "data.jsonl:1: a conversation cannot become pref"),
        (["convert", "data.jsonl", "b.json", "--from", "alpaca"], 'is messages (messages), but data.jsonl:1 is alpaca'),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_line(ftagent: CommandLine, data: Path, words: list[str], says: str) -> None:
    answer = ftagent("data", *words)
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err
    assert answer.err.count("\n") == 1
    assert [path.name for path in data.parent.iterdir() if path.is_file()] == ["data.jsonl"]


def test_convert_says_what_it_did(ftagent: CommandLine, data: Path) -> None:
    two = {"messages": [GOOD["messages"][0], *GOOD["messages"]]}
    data.write_text(json.dumps(GOOD) + "\n" + json.dumps(two) + "\n")
    answer = ftagent("data", "convert", str(data), "b.csv", "--to", "alpaca", "--leave-out")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "b.csv: 1 row of alpaca, read as messages\n1 row left out: alpaca cannot hold that\n"
    done = document(ftagent("data", "convert", "b.csv", "c.json", "--json").out, "data_convert")
    assert (done["read_as"], done["written_as"], done["rows"], done["left_out"]) == ("alpaca", "alpaca", 1, 0)
    assert json.loads(Path("c.json").read_text()) == [{"instruction": "What is it?", "output": "This."}]
    refused = ftagent("data", "convert", str(data), "d.csv", "--to", "alpaca")
    assert refused.code == 2
    assert f"{data}:2: cannot become alpaca" in refused.err
