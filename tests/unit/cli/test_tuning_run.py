"""A run with a plan on the command line: its reports, its study, its controls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from ftagent.core import events
from ftagent.core.journal import read_records
from ftagent.core.run_folder import RunFolder

from .conftest import CommandLine
from .test_commands import check

TUNE = ["run", "--scenario", "noop", "--env", "local", "--agent", "search", "--name", "t", "-o", "stages=1"]
JOINT = [*TUNE, "-o", "plan=joint", "--loop-n", "3"]


def starts(path: Path) -> int:
    """How many loops began, those that were taken back included."""
    return sum(isinstance(r.event, events.Proposed) for r in read_records(path / "journal.jsonl"))


def test_a_run_leaves_a_tuning_report_and_a_study(ftagent: CommandLine, tmp_path: Path) -> None:
    answer = ftagent(*JOINT, "--report-lang", "both")
    assert answer.code == 0, answer.err
    (report,) = (tmp_path / "log/t/docs/reports").glob("agent_run_report_*.md")
    assert f"tuning report: {Path('log/t/docs/reports') / report.name}" in answer.out
    text = report.read_text()
    assert "# Tuning report: noop run" in text
    assert "# 调参报告：noop run" in text
    assert "| `x` | `0.1` |" in text
    study = optuna.load_study(study_name="t", storage=f"sqlite:///{tmp_path / 'log/t/docs/reports/study.db'}")
    assert len(study.trials) == 4
    assert set(study.trials[1].params) == {"x", "mode"}  # `output` is protected, so it is no dimension
    assert (tmp_path / "log/t/best_overall_model/README.md").is_file()


def test_reports_go_where_the_user_wants_them(ftagent: CommandLine, tmp_path: Path) -> None:
    assert ftagent(*JOINT, "--reports-dir", "mine").code == 0
    assert not (tmp_path / "log/t/docs").exists()
    assert {path.suffix for path in (tmp_path / "mine").iterdir()} == {".md", ".db", ""}
    again = ftagent("report", "t", "--lang", "zh")
    assert again.code == 0
    assert Path(again.out.strip()).parent == tmp_path / "mine"
    assert "调参报告" in Path(again.out.strip()).read_text()
    page = ftagent("report", "t", "--lang", "zh", "--format", "html", "--out", "page.html")
    assert page.code == 0
    assert '<html lang="zh">' in (tmp_path / "page.html").read_text()
    assert "data:image/png;base64," in (tmp_path / "page.html").read_text()
    assert ftagent("report", "t", "--format", "optuna", "--out", "my.db").out == "my.db\n"
    assert len(optuna.load_study(study_name="t", storage=f"sqlite:///{tmp_path / 'my.db'}").trials) == 4


def test_controls_have_as_many_loops_the_same_default_and_no_test(ftagent: CommandLine, tmp_path: Path) -> None:
    answer = ftagent(*JOINT, "--controls", "--json")
    assert answer.code == 0, answer.err
    document = check("finished", answer.out.splitlines()[-1])
    assert (document["run"], document["loops"], document["status"]) == ("log/t", 3, "completed")
    main = RunFolder(tmp_path / "log/t").state()
    for name in ("random", "tpe"):
        folder = RunFolder(tmp_path / "log/t/controls" / name)
        state = folder.state()
        assert len(state.experiments) == 3
        assert state.status == "completed"
        assert state.baseline_scores == {"validation": main.baseline_scores["validation"]}
        assert state.baseline_stages == [s for s in main.baseline_stages if s.split in (None, "validation")]
        assert state.test_openings == 0
        assert all(set(item.scores) <= {"validation"} for item in state.experiments)
        assert all(not record.execution.detail for item in state.experiments for record in item.stages)
        assert not folder.best.exists()
        assert [item.hypothesis.plan["sampler"] for item in state.experiments] == [name] * 3
    (report,) = (tmp_path / "log/t/docs/reports").glob("*.md")
    text = report.read_text()
    for words in ("this run", "random search", "Optuna TPE"):
        assert f"| {words} | " in text
    assert ftagent("runs", "--json").out.count('"name"') == 1


def test_controls_are_resumed_where_they_stopped(ftagent: CommandLine, tmp_path: Path) -> None:
    assert ftagent(*JOINT, "--controls").code == 0
    whole = [item.hypothesis.params for item in RunFolder(tmp_path / "log/t/controls/tpe").state().experiments]
    journal = tmp_path / "log/t/controls/tpe/journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = next(n for n, r in enumerate(read_records(journal)) if isinstance(r.event, events.Reflected)) + 1
    journal.write_bytes(b"".join(lines[:kept]))
    openings = RunFolder(tmp_path / "log/t").state().test_openings
    assert ftagent("resume", "t").code == 0
    again = RunFolder(tmp_path / "log/t/controls/tpe").state()
    assert [item.hypothesis.params for item in again.experiments] == whole
    assert starts(tmp_path / "log/t/controls/random") == 3
    assert RunFolder(tmp_path / "log/t").state().test_openings == openings


def test_controls_follow_a_run_that_goes_on(ftagent: CommandLine, tmp_path: Path) -> None:
    assert ftagent(*JOINT).code == 0
    assert not (tmp_path / "log/t/controls").exists()
    for loops in (4, 5):
        answer = ftagent("resume", "t", "--loop-n", str(loops), "--controls")
        assert answer.code == 0, answer.err
        assert starts(tmp_path / "log/t/controls/tpe") == loops
    assert ftagent("prune", "t", "--yes").code == 0
    assert not list((tmp_path / "log/t").glob("**/workspaces"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*TUNE, "--controls"], "tunes no configuration"),
        ([*JOINT, "--report-lang", "fr"], "'fr' is not one of"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    ftagent: CommandLine, tmp_path: Path, words: list[str], said: str
) -> None:
    answer = ftagent(*words)
    assert answer.code == 2
    assert said in answer.err
    assert not (tmp_path / "log").exists()


def test_a_run_that_tunes_nothing_has_no_tuning_report(ftagent: CommandLine, tmp_path: Path) -> None:
    assert ftagent(*TUNE, "--loop-n", "1").code == 0
    assert not (tmp_path / "log/t/docs").exists()
    assert "tuning" not in json.loads((tmp_path / "log/t/run.json").read_text())
    for words in (["--lang", "en"], ["--format", "optuna"]):
        answer = ftagent("report", "t", *words)
        assert answer.code == 2
        assert "no tuning report" in answer.err


def test_a_default_that_nothing_beats_has_a_card_and_a_script(ftagent: CommandLine, tmp_path: Path) -> None:
    answer = ftagent(
        *TUNE, "-o", "plan=joint", "--loop-n", "1", "-o", "floor=0.9", "-o", "ceiling=0.1", "-o", "items=400"
    )
    assert answer.code == 0, answer.err
    selected = RunFolder(tmp_path / "log/t").state().selected
    assert selected is not None
    assert selected.loop is None
    card = (tmp_path / "log/t/best/README.md").read_text()
    assert "# noop run, default configuration" in card
    assert "No configuration that was tried scored better." in card
    done = subprocess.run(["sh", "log/t/best/reproduce.sh", "out"], env={**os.environ, "PYTHON": sys.executable},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/model/params.json").read_text())["x"] == 0.1


@pytest.mark.parametrize("execute", [(), ("--execute",)])
def test_a_tuned_run_is_replayed(ftagent: CommandLine, execute: tuple[str, ...]) -> None:
    assert ftagent(*JOINT).code == 0
    answer = ftagent("replay", "t", *execute)
    assert answer.code == 0, answer.out + answer.err


def test_an_interrupt_in_a_control_leaves_a_report_and_can_be_resumed(ftagent: CommandLine, tmp_path: Path) -> None:
    words = [*JOINT, "--controls", "-o", "sleep=0.5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ftagent", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if "loop 0 code" in seen.partition("controls/random")[2]:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert "ftagent resume log/t" in out
    (report,) = (tmp_path / "log/t/docs/reports").glob("*.md")
    assert "Not finished: random search" in report.read_text()
    assert RunFolder(tmp_path / "log/t").state().status == "completed"
    answer = ftagent("resume", "t")
    assert answer.code == 0, answer.err
    assert RunFolder(tmp_path / "log/t/controls/tpe").state().status == "completed"
