"""The report, its figures, the model card, and the script that trains again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ftagent.core.run_folder import RunFolder
from ftagent.core.types import Mount, Stage
from ftagent.report import markup, write_card, write_report
from ftagent.report.text import clean, sparkline
from ftagent.report.tree import tree_lines

from .conftest import CommandLine, record_run
from .test_commands import schema

HOSTILE = "<script>alert(1)</script> **bold** | [x](javascript:alert(2)) `tick` ![i](http://host/i.png)\n# head"


def test_report_tells_claim_scores_tree_changes_and_honesty(finished_run: RunFolder) -> None:
    paths = write_report(finished_run, finished_run.state())
    names = ["report.md", "report.html", "figures/scores.svg", "figures/losses.svg"]
    assert [path.relative_to(finished_run.path).as_posix() for path in paths] == names
    text = paths[0].read_text()
    for part in (
        "Loop 2 is better than the baseline: accuracy 0.850 (0.709 to 0.929) against 0.200 (0.105 to 0.348) on test.",
        "| test | 0.200 (0.105 to 0.348) | 0.850 (0.709 to 0.929) | +0.650 | 40 |",
        "| 1 | loop 0 | Raise the learning rate | missing | failed | train: out of memory: 3 GiB asked | 0:31 |",
        "   └─ loop 2 0.900 *  More data",
        "-learning_rate: 0.001\n-steps: 10\n+learning_rate: 0.003\n+steps: 30",
        "The sealed test split was opened 1 time.",
        "Sealed: commands could read neither the answers nor the network.",
        "AutoPeftModelForCausalLM",
        "| seed | 7 |",
        "| ftagent | 0.1.0 |",
        "| time | 0:00 | 1:00:00 |",
    ):
        assert part in text, part


def test_report_of_an_unfinished_run_claims_nothing(open_run: RunFolder) -> None:
    text = write_report(open_run, open_run.state())[0].read_text()
    assert "Nothing is claimed yet" in text
    assert "was never opened" in text
    assert "| test | missing | - | - | - |" in text


def test_html_stands_alone(finished_run: RunFolder) -> None:
    html = write_report(finished_run, finished_run.state())[1].read_text()
    assert html.count("data:image/svg+xml;base64,") == 2
    assert not re.search(r"""(src|href)=["'](?!data:)""", html)
    assert "default-src 'none'" in html
    assert '<span class="add">+learning_rate: 0.003</span>' in html


def test_what_an_agent_wrote_is_text_and_nothing_else(tmp_path: Path) -> None:
    run = record_run(tmp_path / "run", finish=True, title=HOSTILE)
    html = write_report(run, run.state())[1].read_text()
    assert "<script" not in html
    assert "<strong>bold" not in html
    assert "javascript:" not in re.sub(r">[^<]*<", "><", html)
    assert "host/i.png" not in re.sub(r">[^<]*<", "><", html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; **bold** | [x](javascript:alert(2))" in html


@given(st.text(max_size=60))
def test_plain_text_survives_markdown_unchanged(text: str) -> None:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    shown = clean(text)
    for source in (markup.plain(text), f"| {markup.plain(text)} |\n| --- |"):
        tokens = parser.parse(source)
        kinds = {token.type for token in tokens}
        assert kinds <= {"paragraph_open", "inline", "paragraph_close", *(k for k in kinds if re.match("t[hdra]", k))}
        children = [child for token in tokens for child in token.children or []]
        assert {child.type for child in children} <= {"text", "text_special"}
        assert "".join(child.content for child in children) == shown


@given(st.lists(st.text(max_size=30), max_size=5))
def test_a_block_cannot_be_left(lines: list[str]) -> None:
    source = "\n".join([*markup.block(lines, "diff"), "end"])
    tokens = MarkdownIt("commonmark").parse(source)
    assert [token.type for token in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]


def test_a_changed_file_is_told_instead_of_compared(finished_run: RunFolder) -> None:
    (finished_run.attempt(2, 0) / "train.yaml").write_text("changed")
    text = write_report(finished_run, finished_run.state())[0].read_text()
    assert "changed since it was recorded" in text


def test_the_same_run_gives_the_same_files(finished_run: RunFolder) -> None:
    first = [path.read_bytes() for path in write_report(finished_run, finished_run.state())]
    assert first == [path.read_bytes() for path in write_report(finished_run, finished_run.state())]


def test_a_long_chain_of_experiments_is_a_tree(finished_run: RunFolder) -> None:
    from dataclasses import replace

    state = finished_run.state()
    first = state.experiments[0]
    state.experiments = [
        replace(first, loop=loop, hypothesis=replace(first.hypothesis, parent=loop - 1 if loop else None))
        for loop in range(1500)
    ]
    assert len(tree_lines(state)) == 1501


def test_report_command_writes_each_format(ftagent: CommandLine, finished_run: RunFolder, tmp_path: Path) -> None:
    assert ftagent("report", "first").out.strip() == "log/first/report.md"
    assert ftagent("report", "first", "--format", "html").out.strip() == "log/first/report.html"
    document = json.loads(ftagent("report", "first", "--format", "json").out)
    jsonschema.validate(document, schema("report"))
    assert document["selected"]["verdict"] == "improved"
    before = sorted(finished_run.path.rglob("*"))
    for kind, mark in (("md", "# llm"), ("html", "<!doctype html>"), ("json", "{")):
        out = tmp_path / f"out.{kind}"
        assert ftagent("report", "first", "--format", kind, "--out", out).code == 0
        assert out.read_text().startswith(mark)
    assert sorted(finished_run.path.rglob("*")) == before


def test_report_of_an_unfinished_run_as_json(ftagent: CommandLine, open_run: RunFolder) -> None:
    document = json.loads(ftagent("report", "open", "--format", "json").out)
    jsonschema.validate(document, schema("report"))
    assert (document["selected"], document["best"]) == (None, None)


def stages(folder: Path) -> list[Stage]:
    rows = folder / "ro}w's.txt"
    rows.write_text("rows\n")
    read = "import os, pathlib; pathlib.Path('data.txt').write_text(open(os.environ['FTAGENT_INPUT_ROWS']).read())"
    train = "import pathlib; pathlib.Path('model').mkdir(); pathlib.Path('model/a.safetensors').write_text('weights')"
    tricky = {"deep/it's.txt": "a 'quoted' text\nEOF\n$HOME `id`\n"}
    return [
        Stage("prepare", "full", ("python", "-c", read), files=tricky, mounts=(Mount("ROWS", str(rows)),)),
        Stage("train", "full", ("python", "-c", train), variables={"X": "1 2"}),
    ]


def reproduce(run: RunFolder, out: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, **variables}
    command = ["sh", str(run.best / "reproduce.sh"), str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_reproduce_runs_the_recorded_commands(finished_run: RunFolder, tmp_path: Path) -> None:
    (finished_run.best / "a.safetensors").write_text("weights")
    card, script = write_card(finished_run, finished_run.state(), stages(tmp_path))
    out = tmp_path / "OUT"
    done = reproduce(finished_run, out)
    assert done.returncode == 0, done.stderr
    assert "same weights as recorded" in done.stdout
    assert (out / "data.txt").read_text() == "rows\n"
    assert (out / "deep" / "it's.txt").read_text() == "a 'quoted' text\nEOF\n$HOME `id`\n"
    assert (out / "train.yaml").read_text() == "learning_rate: 0.003\nsteps: 30\n"
    assert reproduce(finished_run, out).returncode == 2
    assert os.access(script, os.X_OK)
    text = card.read_text()
    assert text.startswith('---\nlibrary_name: "peft"')
    assert "| test | 0.850 (0.709 to 0.929, n 40) | 0.200 (0.105 to 0.348, n 40) |" in text


def test_reproduce_tells_when_the_weights_differ(finished_run: RunFolder, tmp_path: Path) -> None:
    (finished_run.best / "a.safetensors").write_text("other weights")
    write_card(finished_run, finished_run.state(), stages(tmp_path))
    assert "weights differ from the record" in reproduce(finished_run, tmp_path / "OUT").stdout


def test_reproduce_refuses_changed_files_and_missing_inputs(finished_run: RunFolder, tmp_path: Path) -> None:
    write_card(finished_run, finished_run.state(), stages(tmp_path))
    missing = reproduce(finished_run, tmp_path / "one", FTAGENT_INPUT_ROWS="/nowhere")
    assert (missing.returncode, "set FTAGENT_INPUT_ROWS" in missing.stderr) == (1, True)
    (finished_run.best / "files" / "train.yaml").write_text("changed")
    changed = reproduce(finished_run, tmp_path / "two")
    assert (changed.returncode, (tmp_path / "two").exists()) == (1, False)
    assert "files/train.yaml is not the file that was recorded" in changed.stderr


def test_reproduce_tells_which_stage_may_ask_a_model_that_nobody_named(finished_run: RunFolder, tmp_path: Path) -> None:
    first, second = stages(tmp_path)
    write_card(finished_run, finished_run.state(), [replace(first, llm=True), second])
    said = "warning: prepare may ask language models; `ftagent replay RUN --execute` answers from the record"
    done = reproduce(finished_run, tmp_path / "one", OPENAI_BASE_URL="")
    assert (done.returncode, said in done.stderr) == (0, True)
    assert said not in reproduce(finished_run, tmp_path / "two", OPENAI_BASE_URL="http://127.0.0.1:1/v1").stderr


def test_no_card_where_nothing_was_selected(open_run: RunFolder) -> None:
    assert write_card(open_run, open_run.state()) == []


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], ""),
        ([1.0], "▁"),
        ([1.0, 1.0], "▁▁"),
        ([0.0, 7.0], "▁█"),
        ([8.0, 8.0, 0.0, 0.0], "█▁"),
        ([float("nan"), 1.0, 2.0], "▁█"),
    ],
)
def test_sparkline(values: list[float], wanted: str) -> None:
    assert sparkline(values, 2) == wanted
