"""From conversations to rows: each reply is learnt in exactly the tokens that the model will have before it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from ftagent.toolkit.data import Conversation, Message
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.mapping.chat import PROBE, THINK_TAGS, Chat, RefusedMessages
from ftagent.toolkit.mapping.registry import load_map_function
from ftagent.toolkit.mapping.segments import Tokeniser
from ftagent.toolkit.mapping.types import Mapping
from ftagent.toolkit.tokens import IGNORED, Row

BATCH = 256
"""Conversations whose texts are tokenised in one call."""
_INLINE = re.compile(r"\s*<think>(.*?)</think>(.*)\Z", re.DOTALL)


@dataclass(frozen=True)
class _Turn:
    """A reply to learn: `index` of its message, and the texts that the model reads and writes."""

    index: int
    prompt: str
    reply: str


@dataclass
class _Open:
    """A row that may still grow."""

    ids: list[int]
    labels: list[int]


class Mapper:
    """`mapping` at work for one tokenizer; what it finds out of the chat template is found out once.

    `stops` are the ids that end a turn (`stop_tokens`); prompts need none. Raises ToolkitError: no chat template,
    an unknown map function, or one that does not fit the model.
    """

    def __init__(self, tokenizer: Any, mapping: Mapping | None = None, stops: Collection[int] = ()) -> None:
        mapping = mapping or Mapping()
        self._function = load_map_function(mapping.function)
        template = self._function.template(tokenizer)
        chat = Chat(tokenizer, template)
        thinking = mapping.thinking
        if thinking == "auto":
            thinking = "split_turns" if self._function.thinks(chat) else "drop"
        # Under `auto` a template's switch stays where its author put it, as whoever else runs the model leaves it.
        asked = mapping.thinking != "auto"
        self.thinking = thinking
        self._chat = Chat(tokenizer, template, thinking != "drop" if asked else None)
        self._chat.require_text()
        self._stops = frozenset(stops)
        self._tokeniser = Tokeniser(tokenizer)

    @cached_property
    def end_in_history(self) -> str:
        """What ends an assistant's turn in an earlier message: a special token, perhaps after white space, or ""."""
        said: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": PROBE}]
        after = self._prompt([*said, said[0]], "map_function").rpartition(PROBE)[2]
        found = self._chat.added_tokens.search(after) if self._chat.added_tokens else None
        return after[: found.end()] if found and not after[: found.start()].strip() else ""

    def prompt(self, messages: Sequence[Message], place: str) -> list[int]:
        """Ids of what the model reads before it replies. Raises ToolkitError beginning with `place`."""
        return self._tokeniser.encode([self._prompt(self._clean(messages, place), place)])[0]

    def conversation(self, conversation: Conversation, max_length: int, source: str) -> list[Row]:
        """Rows of at most `max_length` tokens. Raises ToolkitError with `source` and line."""
        return next(self._map([conversation], max_length, source))

    def conversations(self, conversations: Iterable[Conversation], max_length: int, source: str) -> Iterator[Row]:
        """Rows of all conversations, in order; quicker than one conversation at a time."""
        remaining = iter(conversations)
        while batch := list(islice(remaining, BATCH)):
            for rows in self._map(batch, max_length, source):
                yield from rows

    def reply(self, prompt: Sequence[Message], reply: Sequence[Message], max_length: int, place: str) -> Row:
        """The row of `prompt` and `reply` with labels on the assistant's messages of `reply` alone."""
        messages = self._clean((*prompt, *reply), place, trained=True)
        turns = self._turns(messages, place, first=len(prompt))
        rows = self._rows(messages, turns, self._encode(turns), place)
        if len(rows) > 1:
            raise ToolkitError(
                f"{place}: the chat template rewrites earlier turns of the reply; give replies of one assistant message"
            )
        return _cut(rows[0], max_length)

    def _map(self, conversations: Sequence[Conversation], max_length: int, source: str) -> Iterator[list[Row]]:
        work = []
        for conversation in conversations:
            place = f"{source}:{conversation.line}"
            messages = self._clean(conversation.messages, place, trained=True)
            work.append((messages, self._turns(messages, place), place))
        ids = iter(self._encode([turn for _, turns, _ in work for turn in turns]))
        for messages, turns, place in work:
            encoded = [next(ids) for _ in turns]
            yield [_cut(row, max_length) for row in self._rows(messages, turns, encoded, place)]

    def _clean(self, messages: Sequence[Message], place: str, trained: bool = False) -> list[Message]:
        """Messages with their reasoning under "thinking" alone, checked."""
        if not messages:
            raise ToolkitError(f"{place}: has no messages")
        if trained and messages[-1]["role"] != "assistant":
            raise ToolkitError(
                f"{place}: message {len(messages)}, the last, has role {messages[-1]['role']}; "
                "a conversation to learn from ends with the assistant's"
            )
        cleaned = []
        for number, message in enumerate(messages, start=1):
            if message["role"] == "tool" or message.get("tool_calls"):
                raise ToolkitError(
                    f"{place}: message {number} is a tool turn; tools are not supported: leave these conversations out"
                )
            content, thinking = message["content"], message.get("thinking") or ""
            if message["role"] == "assistant":
                inline = None if thinking.strip() else _INLINE.match(content)
                if inline:
                    thinking, content = inline[1], inline[2].lstrip("\n")
            found = self._chat.added_tokens and self._chat.added_tokens.search(f"{thinking}\n\n{content}")
            if found:
                raise ToolkitError(f"{place}: message {number} contains the special token {found[0]}; remove it")
            keeps = message["role"] == "assistant" and thinking.strip() and self.thinking != "drop"
            plain = {"role": message["role"], "content": content}
            cleaned.append({**plain, "thinking": thinking} if keeps else plain)
        return cleaned

    def _turns(self, messages: Sequence[Message], place: str, first: int = 0) -> list[_Turn]:
        # Nothing asks for an assistant's message that has none before it: it is context.
        learnt = [
            index
            for index in range(max(first, 1), len(messages))
            if messages[index]["role"] == "assistant"
        ]  # fmt: skip
        if not learnt:
            raise ToolkitError(f"{place}: no message comes before the assistant's, so there is nothing to reply to")
        turns = []
        for index in learnt[-1:] if self.thinking == "last_only" else learnt:
            prompt = self._prompt(messages[:index], place)
            turns.append(_Turn(index, prompt, self._reply(messages[: index + 1], prompt, place)))
        return turns

    def _prompt(self, messages: Sequence[Message], place: str) -> str:
        try:
            return self._function.prompt(self._chat, messages)
        except RefusedMessages as error:
            raise ToolkitError(f"{place}: {error}") from error

    def _reply(self, messages: Sequence[Message], prompt: str, place: str) -> str:
        try:
            reply = self._function.reply(self._chat, messages, prompt)
        except RefusedMessages as error:
            raise ToolkitError(f"{place}: {error}") from error
        masked = self._masked(reply)
        end = len(reply)
        for key in ("content", "thinking"):
            end = masked.rfind(messages[-1].get(key, "").strip(), 0, end)
            if end < 0:
                raise ToolkitError(
                    f"{place}: the chat template takes something away from the {key} of message {len(messages)}; "
                    "does it contain <think> tags or other marks of the template?"
                )
        return reply

    def _masked(self, reply: str) -> str:
        """`reply` with its special tokens made unreadable: "c" is in <|channel|>, but is no content there."""
        tokens = self._chat.added_tokens
        return tokens.sub(lambda found: "\0" * len(found[0]), reply) if tokens else reply

    def _encode(self, turns: Sequence[_Turn]) -> list[tuple[list[int], list[int]]]:
        """(ids of the prompt, ids of the reply) of each turn."""
        ids = self._tokeniser.encode([text for turn in turns for text in (turn.prompt, turn.reply)])
        return list(zip(ids[::2], ids[1::2], strict=True))

    def _rows(
        self,
        messages: Sequence[Message],
        turns: Sequence[_Turn],
        encoded: Sequence[tuple[list[int], list[int]]],
        place: str,
    ) -> list[_Open]:
        rows: list[_Open] = []
        for turn, (prompt, rendered) in zip(turns, encoded, strict=True):
            reply = self._through_end(rendered, turn.reply, messages[turn.index]["content"])
            if rows and _continues(rows[-1], prompt):
                row = rows[-1]
                # Fed is the end of turn as history has it; learnt is the one that ends generation (harmony has two).
                row.ids[-1] = prompt[len(row.ids) - 1]
                added = prompt[len(row.ids) :]
            elif rows and self.thinking == "keep_all":
                row = rows[-1]
                added = self._between(row, messages[: turn.index], place)
            else:
                row = _Open([], [])
                rows.append(row)
                added = prompt
            row.ids += added + reply
            row.labels += [IGNORED] * len(added) + reply
        return rows

    def _through_end(self, ids: list[int], reply: str, content: str) -> list[int]:
        """`ids` of `reply` to where generation stops: its first stop, else the special token after `content`."""
        for index, token in enumerate(ids):
            if token in self._stops:
                return ids[: index + 1]
        tokens = self._chat.added_tokens
        ends = [found for found in tokens.finditer(reply) if found[0] not in THINK_TAGS] if tokens else []
        if content.strip():
            start = self._masked(reply).rfind(content.strip())
            ends = [found for found in ends if found.start() > start][:1]
        if ends:
            return self._tokeniser.encode([reply[: ends[-1].end()]])[0]
        # Some templates end a turn with the mark of the next one.
        return ids + self._tokeniser.encode([self.end_in_history])[0]

    def _between(self, row: _Open, messages: Sequence[Message], place: str) -> list[int]:
        """Ids between the end of the last assistant's turn in `messages` and the next reply."""
        last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
        probed = [*messages[:last], {"role": "assistant", "content": PROBE}, *messages[last + 1 :]]
        after = self._tokeniser.encode([self._prompt(probed, place).rpartition(PROBE)[2]])[0]
        if not self.end_in_history or self.end_in_history[0].isspace():
            raise ToolkitError(
                f"{place}: thinking: keep_all needs a chat template that ends turns with a special token"
            )
        row.ids[-1] = after[0]
        return after[1:]


def _continues(row: _Open, prompt: Sequence[int]) -> bool:
    """Whether `prompt` is `row` and more, but for the token that ends the row's last turn."""
    length = len(row.ids)
    return len(prompt) > length and prompt[: length - 1] == row.ids[:-1]


def _cut(row: _Open, max_length: int) -> Row:
    # A row ends with a label: whatever is cut takes labels away.
    return Row(tuple(row.ids[:max_length]), tuple(row.labels[:max_length]), len(row.ids) > max_length)
