"""What a conversation needs of a model's chat template: prompts, where a turn ends, how it thinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ftagent.toolkit.chat.streaming import CLOSE, OPEN, HarmonySplitter, Splitter, TagSplitter
from ftagent.toolkit.data import Message
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.mapping import Chat, Mapper, Mapping, RefusedMessages, adopt_template
from ftagent.toolkit.tokens import stop_tokens

FINAL_CHANNEL = "<|channel|>final<|message|>"
NO_THOUGHT = CLOSE + "\n\n"
"""Ends reasoning that a prompt has opened, after an empty line, as templates with a switch write it."""
PROBE = "ftagent"
TAIL = 16
"""Tokens at the end of a prompt that tell whether it opens reasoning."""


class ChatTemplate:
    """The template of `tokenizer` as `mapping` has it, which is that of the training.

    `thinking` None leaves reasoning as the mapping has it. Raises ToolkitError where there is no template, or one
    that knows no thinking although `thinking` is given.
    """

    def __init__(self, tokenizer: Any, thinking: bool | None = None, mapping: Mapping | None = None) -> None:
        mapping = mapping or Mapping()
        if thinking is not None:
            mapping = replace(mapping, thinking="split_turns" if thinking else "drop")
        adopt_template(tokenizer, mapping)
        self.tokenizer = tokenizer
        self._mapper = Mapper(tokenizer, mapping)
        self._chat = Chat(tokenizer, None)
        self._harmony = "<|channel|>" in self._chat.source
        if thinking is not None and not (self._harmony or self._chat.has_switch or OPEN in self._chat.source):
            option = "--thinking" if thinking else "--no-thinking"
            raise ToolkitError(f"{option}: the model's chat template knows no thinking")
        self._thinking = thinking

    def prompt(self, messages: Sequence[Message], place: str) -> tuple[list[int], Splitter]:
        """Ids to where the reply begins, and what reads that reply.

        Raises ToolkitError where the template refuses the messages or a text contains a special token.
        """
        ids = self._mapper.prompt([self._without_marks(message) for message in messages], place)
        tail = str(self.tokenizer.decode(ids[-TAIL:]))
        opened = tail.rstrip("\n").endswith(OPEN)
        if self._harmony:
            ids = ids + self._encode(FINAL_CHANNEL) if self._thinking is False else ids
            return ids, HarmonySplitter(in_final=self._thinking is False)
        if self._thinking is False and opened:
            ids = ids + self._encode("\n" * (2 - tail.endswith("\n")) + NO_THOUGHT)
            opened = False
        return ids, TagSplitter(inside=opened)

    def stops(self, model: Any) -> frozenset[int]:
        """Ids that end a turn: the tokenizer's, the model's, and what the template writes after a reply."""
        asked: Message = {"role": "user", "content": "a"}
        try:
            # With its answer a conversation ends as the model would end it, which need not be as it ends in a history.
            whole = self._chat.render([asked, {"role": "assistant", "content": PROBE}])
        except RefusedMessages:
            whole = ""
        marks = set(self.tokenizer.added_tokens_decoder)
        ids = self._encode(whole.rpartition(PROBE)[2])
        return stop_tokens(self.tokenizer, model) | frozenset([token for token in ids if token in marks][:1])

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _without_marks(self, message: Message) -> Message:
        """A model may spell a special token out in letters; in a prompt it would end the turn."""
        marks = self._chat.added_tokens
        if message["role"] != "assistant" or marks is None:
            return message
        return {key: text if key == "role" else marks.sub("", text) for key, text in message.items()}
