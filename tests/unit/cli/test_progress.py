"""The three displays, fed with the records of a real journal."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from rich.console import Console

from ftagent.cli.progress.json_lines import JsonLines
from ftagent.cli.progress.live import LiveDisplay
from ftagent.cli.progress.losses import items_done, training_point
from ftagent.cli.progress.plain import PlainLines
from ftagent.core.events import Proposed, Record, StageFinished
from ftagent.core.journal import read_records
from ftagent.core.run_folder import RunFolder
from ftagent.core.state import State

EVIL = "\x1b[2J\x1b]0;t\x07 text"


def play(run: RunFolder, display: Any) -> None:
    """What the application would tell `display` while this run runs."""
    state = State(run.path)
    display.open()
    for index, record in enumerate(read_records(run.journal)):
        state.apply(record)
        if index == 0:
            display.begin(state)
        feed(display, record)
        display.event(record)
    display.note(f"note {EVIL}")
    display.close()


def feed(display: Any, record: Record) -> None:
    if isinstance(record.event, Proposed):
        display.step(record.event.loop, "code", "")
    if isinstance(record.event, StageFinished):
        loop, stage = record.event.loop, record.event.execution.stage
        display.step(loop, "run", stage)
        display.line(loop, stage, json.dumps({"step": 1, "loss": 2.0}))
        display.line(loop, stage, json.dumps({"step": 2, "loss": 1.0}))
        display.line(loop, stage, json.dumps({"predicted": 10, "of": 40}))
        display.line(loop, stage, EVIL)


def test_plain_lines_have_one_line_per_step_and_no_control_characters(finished_run: RunFolder) -> None:
    out, err = io.StringIO(), io.StringIO()
    play(finished_run, PlainLines(out, err))
    text = out.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text + err.getvalue())
    for loop in range(3):
        for step in ("propose", "code", "run", "feedback"):
            assert len(re.findall(rf"^\S+ loop {loop} {step}: ", text, flags=re.MULTILINE)) == 1
    assert "loop 2 validation: accuracy 0.900 (0.769 to 0.960, n 40), +0.650 against the baseline" in text
    assert "selected loop 2: improved" in text
    assert err.getvalue() == "note: note text\n"


def test_plain_lines_are_typed_where_that_is_asked(finished_run: RunFolder) -> None:
    class Counting(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            return super().write(text)

    out = Counting()
    PlainLines(out, out, typing_delay=1e-6).begin(finished_run.state())
    assert out.writes == len(out.getvalue())


def test_json_lines_are_objects_with_event_and_loop(finished_run: RunFolder) -> None:
    out = io.StringIO()
    play(finished_run, JsonLines(out, io.StringIO()))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    kinds = [line["event"] for line in lines]
    assert kinds.count("reflected") == 3
    assert kinds.count("loss") == 8
    # The last line of a run is the finished document alone; the journal's own mark must not look like it.
    assert "finished" not in kinds
    scored = [line for line in lines if line["event"] == "scored" and line["loop"] == 2]
    assert [line["split"] for line in scored] == ["validation", "test"]
    assert set(scored[0]["score"]) == {"metric", "value", "n", "stderr", "ci95"}
    assert all("loop" in line for line in lines if line["event"] not in {"session", "note"})


@pytest.mark.parametrize("width", [80, 120])
def test_live_display_shows_what_happens_and_leaves_nothing(finished_run: RunFolder, width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=40, color_system=None)
    display = LiveDisplay(console)
    state = State(finished_run.path)
    records = read_records(finished_run.journal)
    for record in records[:4]:
        state.apply(record)
    display.begin(state)
    display.step(0, "run", "train")
    for step in range(100):
        display.line(0, "train", json.dumps({"step": step, "loss": 3.0 - step / 50}))
    shown = render(display, console)
    assert "run · train" in shown
    assert "3.000 → 1.020  step 99" in shown
    assert "▁" in shown
    assert "█" in shown
    assert "accuracy 0.250 (0.142 to 0.402, n 40)" in shown
    assert "loops 0 of 3" in shown
    assert "of 1:00:00" in shown
    display.step(0, "run", "predict")
    display.line(0, "predict", json.dumps({"predicted": 10, "of": 40}))
    assert "10 of 40" in render(display, console)
    display.line(0, "predict", EVIL)
    assert "\x1b" not in render(display, console)
    for record in records[4:]:
        state.apply(record)
    assert "best so far accuracy 0.900 (0.769 to 0.960, n 40), loop 2" in render(display, console)
    assert max(len(line) for line in shown.splitlines()) <= width
    display.close()
    assert render(display, console).strip() == ""


def render(display: LiveDisplay, console: Console) -> str:
    with console.capture() as captured:
        console.print(display._region.picture())
    return captured.get()


def test_live_display_prints_each_event_once(finished_run: RunFolder) -> None:
    out = io.StringIO()
    play(finished_run, LiveDisplay(Console(file=out, force_terminal=True, width=120, color_system=None)))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert text.count("loop 1 feedback: failed, as measured") == 1
    assert text.count("selected loop 2: improved") == 1
    assert out.getvalue().rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in out.getvalue()[-60:]


@pytest.mark.parametrize(
    "line",
    ["", "text", "{", '{"loss": 1}', '{"step": "a", "loss": 1}', '{"step": 1, "loss": NaN}', '["loss"]',
     '{"step": 1, "loss": "x"}', "[" * 9000 + '"loss"', '{"loss":' * 3000],
)  # fmt: skip
def test_lines_that_are_no_training_points(line: str) -> None:
    assert training_point(line) is None


def test_training_points_and_counts_are_read() -> None:
    assert training_point('{"step": 3, "loss": 0.5, "tokens": 9}') == (3, 0.5)
    assert items_done('{"predicted": 3, "of": 4}') == (3, 4)
    assert items_done('{"predicted": 5, "of": 4}') is None
    assert items_done('{"predicted": 0, "of": 0}') is None
