"""What a map function is, and how one is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from ftagent.toolkit.data import Message
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.mapping.chat import Chat

Thinking = Literal["auto", "split_turns", "keep_all", "last_only", "drop"]
THINKING: tuple[str, ...] = get_args(Thinking)


@dataclass(frozen=True)
class Mapping:
    """How conversations become rows. `function` names a map function; `thinking` says what becomes of reasoning.

    `split_turns`: a turn whose context the template rewrites later has a row of its own. `keep_all`: one row
    with the reasoning of all turns. `last_only`: only the last turn is learnt. `drop`: no reasoning at all.
    `auto`: what the map function does by itself; `drop` or `split_turns`.
    """

    function: str = "auto"
    thinking: str = "auto"

    def __post_init__(self) -> None:
        if self.thinking not in THINKING:
            raise ToolkitError(f"thinking: {self.thinking!r} is unknown; valid: {', '.join(THINKING)}")


class MapFunction(Protocol):
    """How a model family writes conversations. A plug-in registers a class, constructed without arguments.

    Both methods may raise `RefusedMessages` with a reason; it reaches the user with file and line.
    """

    def template(self, tokenizer: Any) -> str | None:
        """The chat template to use instead of the tokenizer's; None keeps the tokenizer's.

        Raises ToolkitError where the tokenizer is of another family.
        """

    def thinks(self, chat: Chat) -> bool:
        """Whether reasoning is learnt when the user does not say (`thinking: auto`)."""

    def prompt(self, chat: Chat, messages: Sequence[Message]) -> str:
        """The text that the model reads when it is to reply to `messages`, to where its own text begins."""

    def reply(self, chat: Chat, messages: Sequence[Message], prompt: str) -> str:
        """What the model must generate after `prompt`, which is that of all messages but the last.

        The last message is the assistant's. The text may go on after the end of the turn; that is cut.
        """
