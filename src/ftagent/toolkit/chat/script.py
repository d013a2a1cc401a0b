"""Preset conversations, played without anybody at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ftagent.toolkit.chat.conversations import Script, Turn, as_document, read_scripts, write_conversations
from ftagent.toolkit.chat.session import Reply, Sampling, Session
from ftagent.toolkit.chat.streaming import Piece
from ftagent.toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from ftagent.toolkit.chat.loading import Models


class Show(Protocol):
    """Who watches. `answer` must exhaust the iterators that it gets: taking a piece is what makes it."""

    def conversation(self, script: Script) -> None: ...

    def answer(self, turn: Turn, tuned: Iterator[Piece], untuned: Iterator[Piece] | None) -> None: ...

    def answered(self, reply: Reply) -> None: ...


class Silent:
    """Watches nothing."""

    def conversation(self, script: Script) -> None: ...

    def answer(self, turn: Turn, tuned: Iterator[Piece], untuned: Iterator[Piece] | None) -> None:
        for pieces in (tuned, untuned or iter(())):
            for _ in pieces:
                pass

    def answered(self, reply: Reply) -> None: ...


@dataclass(frozen=True)
class PlayedTurn:
    """A turn, its answer, and the untuned model's where that was asked for."""

    turn: Turn
    reply: Reply
    untuned: Reply | None

    def document(self) -> dict[str, Any]:
        """As `chat --script --json` has it."""
        other = None if self.untuned is None else self.untuned.content
        head = {"user": self.turn.user, "expected": self.turn.expected or None, "answer": self.reply.content}
        rest = {key: value for key, value in asdict(self.reply).items() if key != "content"}
        return {**head, "untuned_answer": other, **rest}


@dataclass(frozen=True)
class Played:
    """A conversation as it went. `conversation` is in our format."""

    id: str
    system: str
    turns: tuple[PlayedTurn, ...]
    conversation: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """As `chat --script --json` has it."""
        return {"id": self.id, "system": self.system, "turns": [turn.document() for turn in self.turns]}


def play(
    model: str, adapter: Path | None, script: Path, out: Path | None = None, *, sampling: Sampling | None = None,
    system: str = "", thinking: bool | None = None, compare_base: bool = False, show: Show | None = None,
    open_models: Callable[[], Models] | None = None,
) -> list[Played]:  # fmt: skip
    """Ask what the user asks in `script`, each conversation anew; answers in the file are not shown to the model.

    `system` is for conversations that have no system prompt. `out` gets the conversations in our format.
    Raises ToolkitError: a script that does not read, a model that does not load, a message that does not fit.
    """
    scripts = read_scripts(script)
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise ToolkitError(f"{out}: not a file in a folder that exists")
    models = open_models() if open_models is not None else _open(model, adapter, thinking)
    chosen = sampling or Sampling()
    played = []
    for preset in scripts:
        words = preset.system or system
        tuned = models.session(chosen, words)
        untuned = models.session(chosen, words, untuned=True) if compare_base else None
        played.append(_play_one(preset, tuned, untuned, show or Silent()))
    if out is not None:
        write_conversations(out, [item.conversation for item in played])
    return played


def _open(model: str, adapter: Path | None, thinking: bool | None) -> Models:
    from ftagent.toolkit.chat.loading import Models

    return Models(model, adapter, thinking=thinking)


def _play_one(script: Script, tuned: Session, untuned: Session | None, show: Show) -> Played:
    show.conversation(script)
    turns = []
    for turn in script.turns:
        other = untuned.ask(turn.user) if untuned is not None else None
        show.answer(turn, tuned.ask(turn.user), other)
        assert tuned.reply is not None, "the iterator of an answer was not exhausted"
        show.answered(tuned.reply)
        turns.append(PlayedTurn(turn, tuned.reply, untuned.reply if untuned is not None else None))
    conversation = as_document(script.id, tuned.system, tuned.messages)
    return Played(script.id, tuned.system, tuple(turns), conversation)
