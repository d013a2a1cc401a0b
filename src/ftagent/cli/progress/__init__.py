"""Three ways to watch a run: live on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from ftagent.core.observer import Observer

if TYPE_CHECKING:
    from pathlib import Path


class Progress(Observer, Protocol):
    """An observer that can be closed, and that can print a log line without tearing its display."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def pause(self) -> None:
        """Leave the terminal to a question until `resume`."""
        ...

    def resume(self) -> None: ...

    def log(self, text: str) -> None:
        """A ready-made line of the log (it may hold colours), without its newline."""
        ...


def choose(as_json: bool, typing_delay: float = 0.0) -> Progress:
    """The display that fits stdout. Who wants a terminal typed at sees lines: a live region cannot be typed."""
    if as_json:
        from ftagent.cli.progress.json_lines import JsonLines

        return JsonLines(sys.stdout, sys.stderr)
    terminal = sys.stdout.isatty()
    if terminal and not typing_delay and not _is_dumb():
        from ftagent.cli.progress.live import LiveDisplay

        return LiveDisplay()
    from ftagent.cli.progress.plain import PlainLines

    return PlainLines(sys.stdout, sys.stderr, typing_delay if terminal else 0.0)


def _is_dumb() -> bool:
    import os

    return os.environ.get("TERM", "dumb") == "dumb"


def resume_command(run: Path) -> str:
    """What to type to go on with a run."""
    import shlex

    return f"ftagent resume {shlex.quote(str(run))}"
