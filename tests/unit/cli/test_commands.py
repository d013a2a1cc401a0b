"""Reading commands on recorded runs: what they print, and that their JSON is what the schemas say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ftagent.core.run_folder import RunFolder

from .conftest import CommandLine, record_run


def schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files("ftagent.cli").joinpath("schemas", f"{name}.json").read_text())
    return loaded


def check(name: str, text: str) -> Any:
    document = json.loads(text)
    jsonschema.validate(document, schema(name), cls=jsonschema.Draft202012Validator)
    return document


def test_every_schema_is_one() -> None:
    names = [path.name for path in files("ftagent.cli").joinpath("schemas").iterdir()]
    assert names
    for name in names:
        jsonschema.Draft202012Validator.check_schema(schema(name.removesuffix(".json")))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runs", ["runs"]),
        ("show", ["show", "first"]),
        ("show_loop", ["show", "first", "--loop", "1"]),
        ("status", ["status", "first"]),
        ("status", ["status", "open"]),
        ("show", ["show", "open"]),
        ("compare", ["compare", "first", "open"]),
        ("scenarios", ["scenarios"]),
        ("models", ["models"]),
        ("config_show", ["config", "show"]),
        ("version", ["version"]),
    ],
)
def test_json_output_follows_its_schema(
    ftagent: CommandLine, finished_run: RunFolder, open_run: RunFolder, name: str, words: list[str]
) -> None:
    answer = ftagent(*words, "--json")
    assert (answer.code, answer.err) == (0, "")
    check(name, answer.out)


def test_a_schema_refuses_what_is_not_its_document(ftagent: CommandLine, finished_run: RunFolder) -> None:
    document = json.loads(ftagent("show", "first", "--json").out)
    document["experiments"][0]["decision"] = "perhaps"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema("show"))


def test_show_tells_what_the_contract_asks(ftagent: CommandLine, finished_run: RunFolder) -> None:
    document = json.loads(ftagent("show", "first", "--json").out)
    assert list(document) == ["run", "options", "baseline", "experiments", "best", "budget"]
    assert document["options"]["benchmark"] == "rg:chain_sum"
    loops = [(item["loop"], item["parent"], item["decision"]) for item in document["experiments"]]
    assert loops == [(0, None, "accept"), (1, 0, "failed"), (2, 0, "accept")]
    assert document["experiments"][1]["validation"] is None
    assert document["experiments"][1]["stages"][0]["end"] == "out_of_memory"
    assert document["best"]["loop"] == 2
    assert document["best"]["test"]["value"] == 0.85
    assert document["budget"]["loops"] == {"spent": 3, "limit": 3}


def test_show_prints_scores_tree_and_claim(ftagent: CommandLine, finished_run: RunFolder) -> None:
    out = ftagent("show", "last").out
    assert "0.900 (0.769 to 0.960)" in out
    assert "├─ loop 1 failed" in out
    assert "selected loop 2: improved" in out
    assert "opened 1 time" in out


@pytest.mark.parametrize("reference", ["first", "fir", "last", "log/first"])
def test_a_run_is_found_by_name_prefix_path_and_last(
    ftagent: CommandLine, finished_run: RunFolder, reference: str
) -> None:
    answer = ftagent("status", reference)
    assert answer.code == 0
    assert "log/first: completed" in answer.out


def test_runs_shows_a_damaged_run_and_the_others(
    ftagent: CommandLine, finished_run: RunFolder, open_run: RunFolder
) -> None:
    text = bytearray(open_run.journal.read_bytes())
    text[100] ^= 1
    open_run.journal.write_bytes(text)
    answer = ftagent("runs", "--json")
    statuses = {run["name"]: run["status"] for run in check("runs", answer.out)["runs"]}
    assert statuses == {"first": "completed", "open": "damaged"}
    assert ftagent("runs").out.count("\n") == 3


def test_log_folder_comes_from_option_environment_file_and_default(
    ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("option", "environment", "file", "log"):
        record_run(tmp_path / place / place, finish=False)
    assert "log" in ftagent("runs").out
    (tmp_path / ".env").write_text("FT_LOG_PATH=file\n")
    assert ftagent("status", "last").out.startswith("file/file")
    monkeypatch.setenv("ft_log_path", "environment")
    assert ftagent("status", "last").out.startswith("environment/")
    assert ftagent("status", "last", "--log-dir", "option").out.startswith("option/")


def test_logs_of_one_loop_and_of_all(ftagent: CommandLine, finished_run: RunFolder) -> None:
    assert "loop 1 trains" in ftagent("logs", "first", "1").out
    everything = ftagent("logs", "first").out
    assert [f"loop {loop} trains" in everything for loop in range(3)] == [True] * 3


def test_logs_cannot_steer_the_terminal(ftagent: CommandLine, finished_run: RunFolder) -> None:
    log = finished_run.running(0) / "train.log"
    log.write_bytes(b"\x1b[2Jgone\x07 \x1b]0;title\x07\rsecond\xff\n")
    out = ftagent("logs", "first", "0").out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\nsecond" in out


def test_prune_deletes_workspaces_only(ftagent: CommandLine, finished_run: RunFolder) -> None:
    file = finished_run.workspace(0) / "model" / "weights"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x" * 2048)
    before = ftagent("show", "first", "--json").out
    refused = ftagent("prune", "first")
    assert (refused.code, file.exists()) == (2, True)
    assert "--yes" in refused.err
    answer = ftagent("prune", "first", "--yes")
    assert (answer.code, finished_run.workspaces.exists()) == (0, False)
    assert "2.0 KiB freed" in answer.out
    assert ftagent("show", "first", "--json").out == before


def test_prune_and_repair_refuse_a_held_run(ftagent: CommandLine, finished_run: RunFolder) -> None:
    (finished_run.workspaces / "x").mkdir(parents=True)
    with finished_run.lock():
        for words in (["prune", "first", "--yes"], ["journal", "repair", "first", "--yes"]):
            answer = ftagent(*words)
            assert answer.code == 2
            assert f"process {os.getpid()}" in answer.err
    assert (finished_run.workspaces / "x").exists()


def test_journal_repair_shows_what_is_lost_and_keeps_the_old(ftagent: CommandLine, finished_run: RunFolder) -> None:
    lines = finished_run.journal.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:5], b"X" + lines[5][1:], *lines[6:]])
    finished_run.journal.write_bytes(damaged)
    refused = ftagent("show", "first")
    assert refused.code == 2
    assert "journal.jsonl:6" in refused.err
    asked = ftagent("journal", "repair", "first")
    assert asked.code == 2
    assert "line 6: unreadable" in asked.out
    assert finished_run.journal.read_bytes() == damaged
    done = ftagent("journal", "repair", "first", "--yes")
    assert (done.code, "kept 5 records" in done.out) == (0, True)
    assert finished_run.journal.read_bytes() == b"".join(lines[:5])
    assert finished_run.journal.with_name("journal.jsonl.damaged").read_bytes() == damaged
    assert ftagent("show", "first").code == 0


def test_journal_repair_leaves_a_sound_journal_alone(ftagent: CommandLine, finished_run: RunFolder) -> None:
    before = finished_run.journal.read_bytes()
    answer = ftagent("journal", "repair", "first")
    assert (answer.code, "no damage" in answer.out) == (0, True)
    assert finished_run.journal.read_bytes() == before


def test_stop_refuses_a_run_that_does_not_run(ftagent: CommandLine, finished_run: RunFolder) -> None:
    assert ftagent("stop", "first").code == 2


def test_compare_warns_where_scores_do_not_compare(
    ftagent: CommandLine, finished_run: RunFolder, open_run: RunFolder
) -> None:
    assert "do not compare" not in ftagent("compare", "first", "open").out
    record = open_run.read_record()
    record["request"]["benchmark"] = "gsm8k"
    open_run.write_json(open_run.record, record)
    assert "differ in benchmark" in ftagent("compare", "first", "open").out


def test_config_show_tells_origins_and_no_secret(
    ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("HF_TOKEN=canary\nMAX_RETRY=7\nFT_JUDGE_RETRY=7\n")
    monkeypatch.setenv("FT_FULL_TIMEOUT", "60")
    answer = ftagent("config", "show", "--origin")
    lines = {line.split()[0]: line for line in answer.out.splitlines()}
    assert str(tmp_path / ".env") in lines["MAX_RETRY"]
    assert "environment" in lines["FT_FULL_TIMEOUT"]
    assert "default" in lines["FT_LOG_PATH"]
    assert "canary" not in answer.out + answer.err
    assert "FT_JUDGE_RETRY is accepted but not used yet" in answer.err


def test_global_options_stand_before_and_after_the_command(ftagent: CommandLine, tmp_path: Path) -> None:
    other = tmp_path / "other.env"
    other.write_text("MAX_RETRY=42\n")
    for words in (["--env-file", other, "config", "show"], ["config", "show", "--env-file", other]):
        assert "42" in next(x for x in ftagent(*words).out.splitlines() if x.startswith("MAX_RETRY"))


def test_every_command_has_help_that_agrees_with_the_list(ftagent: CommandLine) -> None:
    from ftagent.cli.root import COMMANDS, Entry

    def walk(table: Any, words: list[str]) -> list[tuple[list[str], str]]:
        found = []
        for name, entry in table.items():
            here = [*words, name]
            found += [(here, entry.help)] if isinstance(entry, Entry) else walk(entry, here)
        return found

    for words, line in walk(COMMANDS, []):
        answer = ftagent(*words, "--help")
        assert answer.code == 0, words
        shown = " ".join(answer.out.split())
        assert line in shown, words
        assert "--env-file" in shown, words


def test_shell_completion_offers_commands_scenarios_and_runs(tmp_path: Path) -> None:
    record_run(tmp_path / "log" / "a-run", finish=False)

    def complete(words: str, index: int) -> str:
        environment = {**os.environ, "_FTAGENT_COMPLETE": "complete_bash", "COMP_WORDS": words,
                       "COMP_CWORD": str(index)}  # fmt: skip
        command = [sys.executable, "-c", "from ftagent.cli import main; main()"]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        ).stdout

    assert {"run", "runs"} <= set(complete("ftagent ru", 1).split())
    assert "noop" in complete("ftagent run --scenario n", 3).split()
    assert "a-run" in complete("ftagent show a", 2).split()


def test_an_unexpected_error_is_one_line_and_debug_shows_more(
    ftagent: CommandLine, finished_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: RunFolder) -> Any:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr(RunFolder, "state", broken)
    answer = ftagent("show", "first")
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert "ZeroDivisionError: first second" in answer.err
    assert "Traceback" in ftagent("show", "first", "--debug").err


def test_confirmation_is_asked_on_a_terminal(
    ftagent: CommandLine, finished_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def answer(text: str) -> Callable[[], int]:
        (finished_run.workspaces / "x").mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(sys, "stdin", Terminal(text))
        return lambda: ftagent("prune", "first").code

    assert answer("n\n")() == 2
    assert finished_run.workspaces.exists()
    assert answer("y\n")() == 0
    assert not finished_run.workspaces.exists()
