"""Runs of the no-op scenario from the command line to the files they leave."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import CommandLine
from .test_commands import check

NOOP = ["run", "--scenario", "noop", "--env", "local"]
COMMAND = [sys.executable, "-c", "from ftagent.cli import main; main()"]


def test_a_run_prints_lines_and_leaves_report_and_best(ftagent: CommandLine, tmp_path: Path) -> None:
    answer = ftagent(*NOOP, "--loop-n", "2", "--name", "one", "-o", "items=100")
    assert answer.code == 0, answer.err
    assert "loop 1 feedback: " in answer.out
    assert "completed: 2 loops" in answer.out
    run = tmp_path / "log" / "one"
    assert {"report.md", "report.html", "run.json", "journal.jsonl"} <= {path.name for path in run.iterdir()}
    assert "## Loops" in (run / "report.md").read_text()
    assert ftagent("status", "one").out.startswith("log/one: completed")


def test_json_lines_end_in_the_finished_document(ftagent: CommandLine) -> None:
    answer = ftagent(*NOOP, "--loop-n", "2", "--json")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    document = check("finished", lines[-1])
    assert (document["status"], document["loops"], document["test_openings"]) == ("completed", 2, 1)
    assert [json.loads(line)["event"] for line in lines].count("finished") == 1
    check("show", ftagent("show", "last", "--json").out)
    check("report", ftagent("report", "last", "--format", "json").out)


def test_the_last_line_of_a_limited_run_goes_on_with_it(ftagent: CommandLine) -> None:
    answer = ftagent(*NOOP, "--loop-n", "2", "--step-n", "3")
    assert answer.code == 3
    assert "--step-n is reached" in answer.out
    words = shlex.split(answer.out.splitlines()[-1])
    assert words[:2] == ["ftagent", "resume"]
    resumed = ftagent(*words[1:])
    assert resumed.code == 0, resumed.err
    assert "completed: 2 loops" in resumed.out


def test_a_timeout_suggests_a_longer_one(ftagent: CommandLine) -> None:
    answer = ftagent(*NOOP, "--timeout", "2s", "--loop-n", "500", "-o", "stages=1", "-o", "sleep=1")
    assert answer.code == 3, answer
    words = shlex.split(answer.out.splitlines()[-1])
    assert words[-2:] == ["--timeout", "4s"]
    raised = ftagent(*words[1:], "--step-n", "1")
    assert "--step-n is reached" in raised.out, raised


def test_a_finished_run_is_extended_by_a_higher_limit(ftagent: CommandLine) -> None:
    assert ftagent(*NOOP, "--loop-n", "1", "--name", "one").code == 0
    assert "completed: 3 loops" in ftagent("resume", "one", "--loop-n", "3").out


def test_going_back_and_forking(ftagent: CommandLine, tmp_path: Path) -> None:
    assert ftagent(*NOOP, "--loop-n", "2", "--name", "one").code == 0
    before = (tmp_path / "log" / "one" / "journal.jsonl").read_bytes()
    answer = ftagent("resume", "one", "--from", "1:code", "--fork")
    assert answer.code == 0, answer.err
    assert (tmp_path / "log" / "one" / "journal.jsonl").read_bytes() == before
    assert "forked into log/one-fork" in answer.err
    assert "| forked from | `log/one 1:code` |" in (tmp_path / "log" / "one-fork" / "report.md").read_text()
    back = ftagent("resume", "one", "--from", "1")
    assert back.code == 0
    assert "resumed after 1 loop" in back.out
    assert "loop 1 propose: " in back.out


def test_dry_run_changes_nothing(ftagent: CommandLine, tmp_path: Path) -> None:
    answer = ftagent(*NOOP, "--dry-run")
    assert answer.code == 0
    assert "goal" in answer.out
    assert json.loads(ftagent(*NOOP, "--dry-run", "--json").out)["request"]["scenario"] == "noop"
    assert list(tmp_path.iterdir()) == []


def test_options_win_over_environment_over_file(
    ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def request(*words: str) -> tuple[int, int]:
        asked = json.loads(ftagent(*NOOP, "--dry-run", "--json", *words).out)["request"]
        return asked["limit"], asked["parallel"]

    (tmp_path / ".env").write_text("FT_BENCHMARK_LIMIT=11\nMULTI_PROC_N=2\n")
    assert request() == (11, 2)
    monkeypatch.setenv("FT_BENCHMARK_LIMIT", "12")
    assert request() == (12, 2)
    assert request("--limit", "13", "--parallel", "3") == (13, 3)


def test_settings_without_effect_are_warned_about_once(ftagent: CommandLine, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FT_JUDGE_RETRY=3\nBACKEND=x\n")
    err = ftagent(*NOOP, "--loop-n", "1").err
    assert err.count("FT_JUDGE_RETRY is accepted but not used yet") == 1
    assert err.count("BACKEND is accepted but means nothing here") == 1


def test_listing_commands_that_need_the_scenarios(ftagent: CommandLine) -> None:
    check("benchmarks", ftagent("benchmarks", "chain_sum", "--json").out)
    assert "rg:chain_sum?min_terms=2" in ftagent("benchmarks", "chain_sum").out


def test_doctor_checks_and_makes_folders(ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = ftagent("doctor", "--json")
    document = check("doctor", answer.out)
    assert answer.code == (0 if document["ok"] else 1)
    assert {"python", "memory", "disk", "settings", "scenario noop"} <= {c["name"] for c in document["checks"]}
    assert list(tmp_path.iterdir()) == []
    ftagent("doctor", "--fix")
    assert (tmp_path / "log").is_dir()
    monkeypatch.setenv("FTAGENT_DATA_MIRROR", str(tmp_path / "absent"))
    failed = ftagent("doctor")
    assert failed.code == 1
    assert "FAIL  FTAGENT_DATA_MIRROR" in failed.out


@pytest.fixture
def running(tmp_path: Path) -> subprocess.Popen[str]:
    """A run in another process, in the middle of its work."""
    words = [*NOOP, "--loop-n", "200", "--name", "long", "-o", "stages=1", "-o", "sleep=0.5"]
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "log" / "long").glob("Loop_0/running/*.log")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_a_running_run_is_told_refused_and_stopped(
    ftagent: CommandLine, running: subprocess.Popen[str], tmp_path: Path
) -> None:
    try:
        status = check("status", ftagent("status", "long", "--json").out)
        assert (status["status"], status["holder"]["pid"]) == ("running", running.pid)
        for words in (["resume", "long"], ["prune", "long", "--yes"]):
            refused = ftagent(*words)
            assert (refused.code, f"process {running.pid}" in refused.err) == (2, True)
        answer = ftagent("stop", "long")
        assert answer.code == 0, answer.err
        assert answer.out.splitlines()[-1] == "ftagent resume log/long"
        out, err = running.communicate(timeout=30)
        assert running.returncode == 3, err
        assert out.splitlines()[-1] == "ftagent resume log/long"
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", out + err)
    finally:
        if running.poll() is None:
            os.kill(running.pid, signal.SIGKILL)
            running.communicate()
    assert ftagent("resume", "long", "--step-n", "1").code == 3
