"""What the user types: readline with a history that lasts, pastes of several lines, Ctrl-C and Ctrl-D."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from ftagent.toolkit.errors import ToolkitError

PROMPT, CONTINUED = ">>> ", "... "
QUOTES = '"""'
HISTORY_LINES = 1000


class Lines:
    """Messages from stdin. At a terminal they are edited by readline; `history` keeps them, for its owner alone."""

    def __init__(self, history: Path, commands: Sequence[str]) -> None:
        self._terminal = sys.stdin.isatty()
        self._history = history
        if self._terminal:
            self._set_up(commands)

    def read(self) -> str | None:
        """The next message; None at the end of the input. KeyboardInterrupt for Ctrl-C.

        QUOTES begin and end a message of several lines; a bracketed paste is one message, too. Raises ToolkitError for
        what is not UTF-8.
        """
        line = self._line(PROMPT)
        if line is None or not line.startswith(QUOTES):
            return line
        lines = [line.removeprefix(QUOTES)]
        while not lines[-1].rstrip().endswith(QUOTES):
            more = self._line(CONTINUED)
            if more is None:
                return "\n".join(lines)
            lines.append(more)
        lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
        return "\n".join(lines).strip("\n")

    def close(self) -> None:
        """Keep the history. One that cannot be written is no reason to fail."""
        if not self._terminal:
            return
        import readline

        with contextlib.suppress(OSError):
            self._history.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._history, os.O_CREAT | os.O_WRONLY, 0o600))
            readline.set_history_length(HISTORY_LINES)
            readline.write_history_file(self._history)

    def _line(self, prompt: str) -> str | None:
        try:
            if self._terminal:
                return input(prompt)
            line = sys.stdin.readline()
            # In some locales Python passes bytes that are no UTF-8 on, as halves of characters.
            line.encode()
        except EOFError:
            return None
        except UnicodeError as error:
            raise ToolkitError("the input is not UTF-8") from error
        return line.removesuffix("\n") if line else None

    def _set_up(self, commands: Sequence[str]) -> None:
        import readline

        # Python turns it off for its own prompt; it makes a paste of several lines one message.
        readline.parse_and_bind("set enable-bracketed-paste on")
        readline.parse_and_bind("tab: complete")
        readline.set_completer_delims(" \n")
        readline.set_completer(lambda text, state: _completion(commands, text, state))
        readline.clear_history()
        with contextlib.suppress(OSError):
            readline.read_history_file(self._history)


def _completion(commands: Sequence[str], text: str, state: int) -> str | None:
    found = [command for command in commands if text.startswith("/") and command.startswith(text)]
    return found[state] if state < len(found) else None


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """While this lasts, Ctrl-C raises nothing; the function says whether it was pressed.

    What is typed meanwhile is not shown in the middle of an answer, but at the next prompt.
    """
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        with _without_echo():
            yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _without_echo() -> Iterator[None]:
    if not sys.stdin.isatty():
        yield
        return
    import termios

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
