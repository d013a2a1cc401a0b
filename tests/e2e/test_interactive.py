"""Between two rounds of a run on a real terminal: the question, and what each answer does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftagent.core.run_folder import RunFolder

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
QUESTION = "Go on? [Y/n]"


class Pane:
    """A terminal of 100 columns in `folder`; `command` is followed by its exit code."""

    def __init__(self, folder: Path) -> None:
        self._socket = ""
        self._folder = folder
        self._started = 0

    def start(self, *words: str) -> None:
        self.close()
        self._started += 1
        self._socket = str(self._folder / f"tmux-{self._started}")
        command = f"{sys.executable} -m ftagent {' '.join(words)}; echo exit code $?; sleep 600"
        self._tmux("new-session", "-d", "-s", "run", "-x", "100", "-y", "60", command)

    def type(self, *keys: str) -> None:
        self._tmux("send-keys", "-t", "run", *keys)

    def shown(self) -> str:
        return self._tmux("capture-pane", "-p", "-S", "-", "-t", "run")

    def expect(self, text: str, times: int = 1) -> str:
        end = time.monotonic() + 180
        while time.monotonic() < end:
            if (shown := self.shown()).count(text) >= times:
                return shown
            time.sleep(0.1)
        raise AssertionError(f"{text!r} was not shown {times} times:\n{shown}")

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, check=False)

    def _tmux(self, *words: str) -> str:
        return subprocess.run(
            ["tmux", "-S", self._socket, *words], cwd=self._folder, env={**os.environ, "FT_FILE_PATH": "files"},
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip


@pytest.fixture
def pane(tmp_path: Path) -> Iterator[Pane]:
    pane = Pane(tmp_path)
    yield pane
    pane.close()


def run(*words: str) -> list[str]:
    options = ("-o", "plan=univariate", "-o", "stages=1", "--env", "local", "--agent", "search", "--name", "r")
    return ["run", "--scenario", "noop", *options, "--loop-n", "4", *words]


def test_no_ends_the_loops_and_resume_goes_on(pane: Pane, tmp_path: Path) -> None:
    pane.start(*run())
    shown = pane.expect(QUESTION)
    assert "loop 0: " in shown
    assert "against the default" in shown
    assert "next is round 2 of 4" in shown
    pane.type("maybe", "Enter")
    pane.expect("Please answer y or n.")
    pane.type("Enter")
    pane.expect("next is round 3 of 4")
    pane.expect(QUESTION, times=3)
    pane.type("n", "Enter")
    shown = pane.expect("exit code 3")
    assert "the sealed test is opened (finish)" in shown
    assert "stopped: 2 loops" in shown
    assert "ftagent resume log/r" in shown
    state = RunFolder(tmp_path / "log/r").state()
    assert (state.status, len(state.experiments), state.test_openings) == ("stopped", 2, 1)
    assert state.selected is not None
    assert (tmp_path / "log/r/report.md").is_file()

    pane.start("resume", "log/r")
    pane.expect(QUESTION)
    assert len(RunFolder(tmp_path / "log/r").state().experiments) == 3
    pane.type("C-d")  # the end of input is a no as well
    pane.expect("exit code 3")
    pane.start("resume", "log/r", "--auto")
    assert QUESTION not in pane.expect("exit code 0")
    state = RunFolder(tmp_path / "log/r").state()
    assert (state.status, len(state.experiments)) == ("completed", 4)


def test_auto_never_asks_and_a_plain_run_asks_only_when_told(pane: Pane) -> None:
    pane.start(*run("--auto"))
    assert QUESTION not in pane.expect("exit code 0")
    pane.start(*[word.replace("plan=univariate", "plan=") for word in run()])
    assert QUESTION not in pane.expect("exit code 0")


def test_a_stop_at_the_question_leaves_the_terminal_whole(pane: Pane, tmp_path: Path) -> None:
    pane.start(*run("--interactive", "--parallel", "2"))
    pane.expect(QUESTION)
    pane.type("C-c")
    pane.expect("exit code 3")
    state = RunFolder(tmp_path / "log/r").state()
    assert state.complete(0)
    assert state.status is None


def test_nobody_is_asked_where_there_is_no_terminal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ftagent", *run("--interactive")], cwd=tmp_path, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=True, env={**os.environ, "FT_FILE_PATH": "files"},
    )  # fmt: skip
    assert QUESTION not in done.stdout
    assert "no terminal to ask at" in done.stderr
    assert len(RunFolder(tmp_path / "log/r").state().experiments) == 4
