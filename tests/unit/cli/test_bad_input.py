"""Wrong requests: one line that says what is wrong and what would be right, exit code 2, nothing created."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ftagent.core.run_folder import RunFolder

from .conftest import Answer, CommandLine

NOOP = ["run", "--scenario", "noop", "--loop-n", "1"]


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def refused(answer: Answer, *parts: str) -> None:
    assert answer.code == 2, answer
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1, answer.err
    assert "Traceback" not in answer.err
    for part in parts:
        assert part in answer.err, answer.err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["rn"], ["'rn'", "run"]),
        (["config", "sho"], ["'sho'", "show"]),
        (["run", "--scenaro", "noop"], ["--scenaro", "--scenario"]),
        (["run", "--scenario", "noob"], ["noob", "noop"]),
        ([*NOOP, "--agent", "oracle"], ["oracle", "search"]),
        ([*NOOP, "--agent", "llm"], ["llm", "search"]),
        ([*NOOP, "--env", "dokcer"], ["dokcer", "docker"]),
        ([*NOOP, "--env", "ray"], ["ray", "local"]),
        ([*NOOP, "--keep", "some"], ["some", "best"]),
        ([*NOOP, "-o", "itmes=3"], ["itmes", "items"]),
        ([*NOOP, "-o", "items"], ["items", "key=value"]),
        ([*NOOP, "-o", "items=many"], ["items"]),
        ([*NOOP, "-o", "items=3", "-o", "ITEMS=4"], ["items", "twice"]),
        ([*NOOP, "--loop-n", "0"], ["--loop-n", "at least 1"]),
        ([*NOOP, "--loop-n", "x"], ["--loop-n"]),
        ([*NOOP, "--step-n", "-1"], ["--step-n", "at least 1"]),
        ([*NOOP, "--timeout", "90"], ["--timeout", "90s"]),
        ([*NOOP, "--timeout", "0s"], ["--timeout"]),
        ([*NOOP, "--budget-usd", "-1"], ["--budget-usd"]),
        ([*NOOP, "--budget-usd", "nan"], ["--budget-usd"]),
        ([*NOOP, "--limit", "0"], ["--limit"]),
        ([*NOOP, "--parallel", "0"], ["--parallel"]),
        ([*NOOP, "--gpus", "17"], ["17"]),
        ([*NOOP, "--name", "../x"], ["../x"]),
        ([*NOOP, "--env-file", "absent.env"], ["absent.env", "does not exist"]),
        (["show", "nothing"], ["nothing", "first", "open"]),
        (["show"], ["RUN"]),
        (["show", "first", "--loop", "9"], ["9", "3 loops"]),
        (["logs", "first", "9"], ["9", "0, 1, 2"]),
        (["logs", "first", "x"], ["baseline"]),
        (["resume", "nothing"], ["nothing", "first"]),
        (["resume", "first", "--from", "9"], ["9", "0 to 2"]),
        (["resume", "first", "--from", "1:train"], ["1:train", "propose, code, run, feedback"]),
        (["report", "first", "--format", "pdf"], ["pdf", "html"]),
        (["report", "first", "--lang", "zh"], ["tuning report"]),
        (["report", "first", "--lang", "xx"], ["xx", "en", "zh", "both"]),
        (["report", "first", "--out", "absent/folder/x.md"], ["absent/folder/x.md"]),
        (["stop", "first"], ["not running"]),
        (["show", "x" * 300], ["xxx"]),
        (["compare", "first"], ["RUN"]),
        (["benchmarks", "zzz"], ["zzz", "gsm8k"]),
    ],
)
def test_wrong_requests(
    ftagent: CommandLine,
    tmp_path: Path,
    finished_run: RunFolder,
    open_run: RunFolder,
    words: list[str],
    parts: list[str],
) -> None:
    before = listing(tmp_path)
    refused(ftagent(*words), *parts)
    assert listing(tmp_path) == before


def test_an_unknown_name_is_told_in_a_fresh_folder_and_nothing_is_made(ftagent: CommandLine, tmp_path: Path) -> None:
    refused(ftagent("run", "--scenario", "llm", "--base-model", "smollm2-135n", "--benchmark", "gsm9k"), "gsm9k")
    refused(ftagent("runs", "nonsense"), "nonsense")
    refused(ftagent("show", "last"), "last")
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "part"), [(b'A="open\n', ".env:1"), (b"\xff\xfe=1\n", "UTF-8"), (b"MULTI_PROC_N=0\n", "MULTI_PROC_N")]
)
def test_a_bad_env_file(ftagent: CommandLine, tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / ".env").write_bytes(content)
    for words in (NOOP, ["config", "show"]):
        refused(ftagent(*words), part)
    assert listing(tmp_path) == [".env"]


def test_an_env_file_that_cannot_be_opened(ftagent: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    path.chmod(0)
    if os.access(path, os.R_OK):
        # Root reads everything; a name that is too long cannot be opened by anybody.
        refused(ftagent("config", "show", "--env-file", "x" * 300))
    else:
        refused(ftagent("config", "show"), ".env")


def test_a_log_folder_below_a_file(ftagent: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(ftagent(*NOOP, "--log-dir", "file/log"), "file/log")
    assert listing(tmp_path) == ["file"]


def test_a_read_only_log_folder(tmp_path: Path) -> None:
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        pytest.skip("a read-only folder that binds root, too, needs bubblewrap")
    import sys

    (tmp_path / "log").mkdir()
    command = [bubblewrap, "--dev-bind", "/", "/", "--ro-bind", str(tmp_path / "log"), str(tmp_path / "log"),
               sys.executable, "-c", "from ftagent.cli import main; main()", *NOOP]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    refused(Answer(done.returncode, done.stdout, done.stderr), "log", "written")
    assert listing(tmp_path) == ["log"]


def test_a_language_models_code_runs_without_a_sandbox_only_where_the_user_says_so(
    ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.yaml").write_text("replies: [{role: propose, text: '{}'}]")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))  # no bubblewrap there
    monkeypatch.setenv("CHAT_MODEL", f"scripted/{tmp_path / 'model.yaml'}")
    words = (*NOOP, "--agent", "llm", "--env", "local", "--dry-run")
    refused(ftagent(*words), "--env local: an LLM's code would run without a sandbox", "--yes-run-unsandboxed")
    accepted = ftagent(*words, "--yes-run-unsandboxed")
    assert accepted.code == 0, accepted.err
    monkeypatch.setenv("FTAGENT_YES_RUN_UNSANDBOXED", "True")
    accepted = ftagent(*words)
    assert accepted.code == 0, accepted.err


def test_a_log_format_that_loguru_cannot_use(
    ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_FORMAT_CONSOLE", "{nonsense}")
    refused(ftagent(*NOOP), "LOG_FORMAT_CONSOLE")
    monkeypatch.setenv("LOG_FORMAT_CONSOLE", "<nonsense>{message}")
    refused(ftagent(*NOOP), "LOG_FORMAT_CONSOLE")
    assert listing(tmp_path) == []


def test_a_held_run_names_its_holder(ftagent: CommandLine, open_run: RunFolder) -> None:
    with open_run.lock():
        before = open_run.journal.read_bytes()
        record = open_run.read_record()
        record["request"] = {"scenario": "noop"}
        open_run.write_json(open_run.record, record)
        refused(ftagent("resume", "open"), f"process {os.getpid()}")
    assert open_run.journal.read_bytes() == before
