"""Lines for files and pipes: one per thing that happened, no control characters."""

from __future__ import annotations

import re
import time
from typing import TextIO

from ftagent.cli.progress.sentences import greeting, sentence
from ftagent.core.events import Record
from ftagent.core.state import State
from ftagent.core.types import StepName
from ftagent.report.text import clean

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class PlainLines:
    """Writes progress to `out`, notes and logs to `err`."""

    def __init__(self, out: TextIO, err: TextIO, typing_delay: float = 0.0) -> None:
        """`typing_delay`: seconds per character on `out`."""
        self._typing_delay = typing_delay
        self._out = out
        self._err = err
        self._state: State | None = None

    def open(self) -> None: ...

    def close(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def begin(self, state: State) -> None:
        self._state = state
        for line in greeting(state):
            self._print(line)

    def event(self, record: Record) -> None:
        if self._state is not None and (line := sentence(record, self._state)):
            self._print(line)

    def step(self, loop: int | None, step: StepName | None, stage: str) -> None: ...

    def line(self, loop: int | None, stage: str, text: str) -> None: ...

    def note(self, text: str) -> None:
        self._err.write(f"note: {clean(text)}\n")
        self._err.flush()

    def log(self, text: str) -> None:
        self._err.write(_COLOUR.sub("", text) + "\n")
        self._err.flush()

    def _print(self, line: str) -> None:
        text = f"{time.strftime('%H:%M:%S')} {line}\n"
        for part in text if self._typing_delay else (text,):
            self._out.write(part)
            self._out.flush()
            time.sleep(self._typing_delay)
