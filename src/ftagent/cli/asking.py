"""The question between two rounds of a run: `Go on? [Y/n]`."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING

from ftagent.report.text import clean, score_text

if TYPE_CHECKING:
    from ftagent.cli.progress import Progress
    from ftagent.core.state import State
    from ftagent.core.types import Score

QUESTION = "Go on? [Y/n] "


def somebody_there() -> bool:
    """Whether a question would be seen and could be answered."""
    return sys.stdin.isatty() and sys.stdout.isatty()


class Asker:
    """A `Gate` at the terminal. Enter and `y` go on; `n` and the end of input (Ctrl-D) do not."""

    def __init__(self, display: Progress, redact: Callable[[str], str]) -> None:
        self._display = display
        self._redact = redact

    async def go_on(self, state: State, loop: int) -> bool:
        self._display.pause()
        try:
            for line in round_lines(state, loop):
                _show(self._redact(line) + "\n")
            return await self._answer()
        finally:
            self._display.resume()

    async def _answer(self) -> bool:
        # What was typed while a training ran was no answer to this.
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        while True:
            _show(QUESTION)
            line = await _line(sys.stdin.fileno())
            if not line:
                _show("\n")
            word = line.strip().lower()
            if word in ("n", "no") or not line:
                return False
            if word in ("", "y", "yes"):
                return True
            _show("Please answer y or n.\n")


async def _line(descriptor: int) -> str:
    """What is entered next; empty at the end of input. Unlike a thread in input(), this can be cancelled."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 4096).decode(errors="replace")


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def round_lines(state: State, loop: int) -> list[str]:
    """How `loop` went, and what comes next."""
    item = state.experiments[loop]
    said, metric = item.feedback, state.created.metric if state.created else "score"
    lines = ["", f"loop {loop}: {clean(item.hypothesis.title)}"]
    lines += [f"  note: {clean(note)}" for note in item.hypothesis.notes]
    if item.validation is None:
        lines.append(f"  no score: {clean(item.failure) or 'missing'}")
    else:
        lines.append(f"  {metric} {score_text(item.validation)}{_against(state, loop, item.validation)}")
    if said is not None:
        lines.append(f"  {said.decision}: {clean(said.reason)}")
    total = "" if state.limits.loop_n is None else f" of {state.limits.loop_n}"
    following = f"{len(state.experiments) + 1}{total}"
    advice = f": {clean(said.next)}" if said is not None and said.next else ""
    return [*lines, f"  next is round {following}{advice}"]


def _against(state: State, loop: int, score: Score) -> str:
    """Differences to the default and, where that is another, to the best before it."""
    base = state.baseline_scores.get("validation")
    if base is None:
        return ""
    sign = 1 if score.direction == "maximize" else -1
    before = [earlier for item in state.experiments[:loop] if (earlier := item.validation)]
    best = max((base, *before), key=lambda earlier: sign * earlier.value)
    text = f", {score.value - base.value:+.3f} against the default"
    return text if best is base else f"{text}, {score.value - best.value:+.3f} against the best before"
