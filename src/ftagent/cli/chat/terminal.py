"""A conversation at a terminal: messages, commands, answers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ftagent.cli.chat.lines import Lines, interruptible
from ftagent.cli.chat.view import View, remarks, shown
from ftagent.toolkit.chat import Piece, Sampling, Session
from ftagent.toolkit.chat.conversations import as_document, save_conversation
from ftagent.toolkit.chat.loading import Models
from ftagent.toolkit.errors import ToolkitError

HELP = {
    "/reset": "forget what was said; the system prompt stays",
    "/retry": "answer the last message again",
    "/system TEXT": "set the system prompt; alone it shows it, `/system -` removes it",
    "/compare": "let the untuned model answer beside, or no longer",
    "/save FILE": "put the conversation into FILE, which `ftagent train` reads",
    "/help": "show this",
    "/quit": "leave, as Ctrl-D does",
}
NOTES = (
    'Ctrl-C stops an answer. """ begins and ends a message of several lines; a paste is one message.',
    "A message that begins with / has a space before it.",
)


class Conversation:
    """Reads messages until the end. `compare` lets the untuned model answer from the beginning."""

    def __init__(
        self, models: Models, sampling: Sampling, system: str, compare: bool, view: View, lines: Lines
    ) -> None:
        self._models, self._sampling = models, sampling
        self._view, self._lines = view, lines
        self._tuned = models.session(sampling, system)
        self._untuned: Session | None = models.session(sampling, system, untuned=True) if compare else None
        self._id = _new_id()
        self._commands: dict[str, Callable[[str], None]] = {
            "/reset": self._reset, "/retry": self._retry, "/system": self._system, "/compare": self._compare,
            "/save": self._save, "/help": self._help,
        }  # fmt: skip

    def run(self) -> bool:
        """Until the end of the input or /quit. What goes wrong with one message is one line, and False at the end."""
        well = True
        while True:
            try:
                text = self._lines.read()
            except KeyboardInterrupt:
                self._view.note("\n(Ctrl-D or /quit leaves)")
                continue
            if text is None:
                self._view.note("")
                return well
            if text.strip() == "/quit":
                return well
            if not text.strip():
                continue
            try:
                self._do(text)
            except ToolkitError as error:
                well = False
                self._view.note(f"error: {shown(str(error))}")

    def _do(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        if not text.startswith("/"):
            self._answer(lambda session, stopped: session.ask(text.strip(), stopped))
        elif name in self._commands:
            self._commands[name](rest.strip())
        else:
            self._view.note(f"no command {shown(name)}; there are {', '.join([*self._commands, '/quit'])}")

    def _answer(self, ask: Callable[[Session, Callable[[], bool]], Iterator[Piece]]) -> None:
        with interruptible() as stopped:
            tuned = ask(self._tuned, stopped)
            untuned = ask(self._untuned, stopped) if self._untuned is not None else None
            self._view.answer(tuned, untuned)
        if self._tuned.reply is None:
            self._view.note("(stopped before an answer)")
            return
        for line in remarks(self._tuned.reply, self._sampling.max_new_tokens):
            self._view.note(line)

    def _reset(self, rest: str) -> None:
        for session in self._sessions():
            session.reset()
        self._id = _new_id()
        self._view.note("(a new conversation)")

    def _retry(self, rest: str) -> None:
        if self._tuned.greedy:
            self._view.note("(greedy decoding answers the same again; --temperature 0.7 would not)")
        self._answer(lambda session, stopped: session.retry(stopped))

    def _system(self, rest: str) -> None:
        if rest:
            for session in self._sessions():
                session.system = "" if rest == "-" else rest
        system = self._tuned.system
        self._view.note(f"system: {shown(system)}" if system else "(no system prompt of yours)")

    def _compare(self, rest: str) -> None:
        if self._untuned is not None:
            self._untuned = None
            self._view.note("(the tuned model alone)")
            return
        self._untuned = self._models.session(self._sampling, self._tuned.system, untuned=True)
        self._untuned.follow(self._tuned)
        self._view.note("(the untuned model answers beside; what was said so far, it takes for its own)")

    def _save(self, rest: str) -> None:
        if not rest:
            raise ToolkitError("/save FILE: give the name of a file")
        if not self._tuned.messages:
            raise ToolkitError("nothing was said yet")
        path = Path(rest).expanduser()
        count = save_conversation(path, as_document(self._id, self._tuned.system, self._tuned.messages))
        self._view.note(f"saved: {path} has {count} conversation{'s' if count > 1 else ''}")

    def _help(self, rest: str) -> None:
        for name, meaning in HELP.items():
            self._view.note(f"{name:14}{meaning}")
        for line in NOTES:
            self._view.note(line)

    def _sessions(self) -> list[Session]:
        return [session for session in (self._tuned, self._untuned) if session is not None]


def _new_id() -> str:
    # Two conversations may begin within a second; saving one must not replace the other.
    return time.strftime("chat-%Y-%m-%d-%H%M%S-") + secrets.token_hex(2)
