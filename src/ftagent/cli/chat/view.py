"""How answers look: streamed, thinking dimmed, two models side by side where there is room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO
from unicodedata import category

if TYPE_CHECKING:
    from ftagent.toolkit.chat import Piece, Reply
    from ftagent.toolkit.chat.conversations import Script, Turn

DIM, RESET = "\x1b[2m", "\x1b[0m"
WIDE = 100
"""Columns from which on two answers stand side by side."""
MARGIN = 8
"""Columns that stay free: terminals disagree on the width of emoji, and a line that wraps tears the display."""
NAMES = ("tuned", "untuned")
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def shown(text: str) -> str:
    """Text without what would steer the terminal or turn its direction: a model wrote it."""
    return "".join(
        char for char in text if char in "\n\t" or (category(char) not in {"Cc", "Cs"} and char not in _TURNING)
    )


class View:
    """Writes to `out`. Colours only on a terminal that has them and where NO_COLOR is not set."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        dumb = os.environ.get("TERM", "dumb") == "dumb"
        self._colour = self._terminal and not dumb and not os.environ.get("NO_COLOR")
        self._moves = self._terminal and not dumb

    def note(self, text: str) -> None:
        """A line of ours."""
        self._write(f"{DIM}{text}{RESET}\n" if self._colour else f"{text}\n")

    def answer(self, tuned: Iterator[Piece], untuned: Iterator[Piece] | None) -> None:
        """Show an answer while it is made, or two of them."""
        if untuned is None:
            self._stream(tuned)
        elif self._moves and shutil.get_terminal_size().columns >= WIDE:
            self._side_by_side(tuned, untuned)
        else:
            for name, pieces in zip(NAMES, (tuned, untuned), strict=True):
                self._write(f"{name}: ")
                self._stream(pieces)

    def _stream(self, pieces: Iterator[Piece]) -> None:
        channel = ""
        try:
            for piece in pieces:
                if piece.channel != channel:
                    self._write(self._turn(channel, piece.channel))
                    channel = piece.channel
                self._write(shown(piece.text))
        finally:
            self._write((RESET if self._colour and channel == "thinking" else "") + "\n")

    def _turn(self, before: str, after: str) -> str:
        """What separates thinking from the answer."""
        if after == "thinking":
            return DIM if self._colour else "[thinking] "
        if before != "thinking":
            return ""
        return f"{RESET}\n\n" if self._colour else "\n\n[answer] "

    def _side_by_side(self, tuned: Iterator[Piece], untuned: Iterator[Piece]) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=self._out, no_color=not self._colour, highlight=False)
        texts = [Text(), Text()]
        ends = ["", ""]
        going = [(0, tuned), (1, untuned)]
        with Live(console=console, transient=True, refresh_per_second=8, vertical_overflow="ellipsis") as live:
            while going:
                for side, pieces in list(going):
                    piece = next(pieces, None)
                    if piece is None:
                        going.remove((side, pieces))
                        continue
                    if ends[side] == "thinking" and piece.channel == "content":
                        texts[side].append("\n\n")
                    ends[side] = piece.channel
                    texts[side].append(shown(piece.text), style="dim" if piece.channel == "thinking" else "")
                live.update(_columns(texts, console.width - MARGIN))
        console.print(_columns(texts, console.width - MARGIN))

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


class Player:
    """Shows the turns of `play`."""

    def __init__(self, view: View, limit: int) -> None:
        self._view, self._limit = view, limit

    def conversation(self, script: Script) -> None:
        system = f", system: {shown(script.system)}" if script.system else ""
        self._view.note(f"conversation {shown(script.id)}{system}")

    def answer(self, turn: Turn, tuned: Iterator[Piece], untuned: Iterator[Piece] | None) -> None:
        self._view.note(f">>> {shown(turn.user)}")
        self._view.answer(tuned, untuned)
        if turn.expected:
            self._view.note(f"expected: {shown(turn.expected)}")

    def answered(self, reply: Reply) -> None:
        for line in remarks(reply, self._limit):
            self._view.note(line)


def remarks(reply: Reply, max_new_tokens: int) -> list[str]:
    """What has to be said about an answer, apart from the answer."""
    found = []
    if reply.dropped:
        found.append(
            f"(the context is full: the {reply.dropped} oldest messages are no longer seen; /reset starts anew)"
        )
    if reply.ended == "length":
        found.append(f"(stopped at --max-new-tokens {max_new_tokens})")
    if reply.ended == "context":
        found.append("(stopped: the model's context is full; /reset starts anew)")
    if reply.ended == "interrupted":
        found.append("(stopped)")
    if reply.ended == "stop" and not reply.content:
        found.append("(no answer: the model ended its turn at once)")
    return found


def _columns(texts: list[Any], width: int) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, width=width, show_edge=False)
    for name in NAMES:
        table.add_column(name, ratio=1, overflow="fold")
    table.add_row(*texts)
    return table
