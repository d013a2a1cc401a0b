"""The lines at the foot of a terminal that are redrawn while others scroll by above."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

_REFRESH_SECONDS = 0.25


class Region:
    """Draws what `render` returns, four times a second, until it is closed; nothing of it stays on the screen.

    `lock` is held while it draws: whoever prints above holds it too, because rich prints and redraws under different
    locks, and one that wraps both keeps half-drawn regions off the screen. `render` may be called at once.
    """

    def __init__(self, console: Console, render: Callable[[], Any], name: str) -> None:
        self.lock = threading.RLock()
        self._closed = threading.Event()
        self._hidden = False
        self._ticker = threading.Thread(target=self._tick, name=name, daemon=True)
        self._render = render
        self._live = Live(
            get_renderable=self.picture, console=console, auto_refresh=False, transient=True, redirect_stdout=False,
            redirect_stderr=False, vertical_overflow="crop",
        )  # fmt: skip

    def open(self) -> None:
        """Begin to draw."""
        self._live.start()
        self._ticker.start()

    def close(self) -> None:
        """Take it off the screen."""
        self._closed.set()
        if self._ticker.is_alive():
            self._ticker.join()
        self.hide()

    def hide(self) -> None:
        """Leave the screen, cursor and all, to somebody else until `show`."""
        with self.lock:
            self._hidden = True
            self._live.stop()

    def show(self) -> None:
        """Draw again after `hide`."""
        with self.lock:
            self._hidden = False
            self._live.vertical_overflow = "crop"  # stopping lets it print in full
            self._live.start()

    def picture(self) -> Any:
        """What is on the screen: nothing while it is hidden."""
        return Text("") if self._hidden else self._render()

    def _tick(self) -> None:
        while not self._closed.wait(_REFRESH_SECONDS):
            with self.lock:
                if not self._hidden:
                    self._live.refresh()
