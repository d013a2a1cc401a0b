"""What a conversation needs of a model's chat template: prompts, where a turn ends, how it thinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftagent.toolkit.chat.streaming import CLOSE, OPEN, HarmonySplitter, Splitter, TagSplitter
from ftagent.toolkit.data import Message
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.tokens import stop_tokens

FINAL_CHANNEL = "<|channel|>final<|message|>"
NO_THOUGHT = "\n\n" + CLOSE + "\n\n"
"""Ends reasoning that a prompt has opened, as templates with a switch write it."""
PROBE = "ftagent"


class ChatTemplate:
    """The template of `tokenizer`. `thinking` None leaves it as the template has it.

    Raises ToolkitError where there is no template, or one that knows no thinking although `thinking` is given.
    """

    def __init__(self, tokenizer: Any, thinking: bool | None = None) -> None:
        self.tokenizer = tokenizer
        text = str(getattr(tokenizer, "chat_template", None) or "")
        if not text:
            raise ToolkitError("the model's tokenizer has no chat template; give an instruct model")
        self._harmony = "<|channel|>" in text
        self._switch = "enable_thinking" in text
        if thinking is not None and not (self._harmony or self._switch or OPEN in text):
            option = "--thinking" if thinking else "--no-thinking"
            raise ToolkitError(f"{option}: the model's chat template knows no thinking")
        self._thinking = thinking

    def prompt(self, messages: Sequence[Message], place: str) -> tuple[list[int], Splitter]:
        """Ids to where the reply begins, and what reads that reply.

        Raises ToolkitError where the template refuses the messages or a text contains a special token.
        """
        asked = [message for message in messages if message["role"] != "assistant"]
        self._refuse_special_tokens(asked, place)
        text = self._render([self._plain(message) for message in messages], place)
        opened = text.rstrip("\n").endswith(OPEN)
        if self._thinking is False and self._harmony:
            text += FINAL_CHANNEL
        elif self._thinking is False and opened:
            text = text.rstrip("\n") + NO_THOUGHT
            opened = False
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if self._harmony:
            return ids, HarmonySplitter(in_final=self._thinking is False)
        return ids, TagSplitter(inside=opened)

    def stops(self, model: Any) -> frozenset[int]:
        """Ids that end a turn: the tokenizer's, the model's, and what the template writes after a reply."""
        found = set(stop_tokens(self.tokenizer, model))
        try:
            turn: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": PROBE}]
            _, probe, after = self._render(turn, "chat template", reply=False).rpartition(PROBE)
        except ToolkitError:
            return frozenset(found)
        marks = set(self.tokenizer.added_tokens_decoder)
        ids = self.tokenizer(after, add_special_tokens=False)["input_ids"] if probe else []
        found.update([token for token in ids if token in marks][:1])
        return frozenset(found)

    def _refuse_special_tokens(self, messages: Sequence[Message], place: str) -> None:
        for message in messages:
            for token in self.tokenizer.all_special_tokens:
                if token in message["content"]:
                    raise ToolkitError(f"{place}: it contains the special token {token}; leave it out")

    def _plain(self, message: Message) -> Message:
        """As templates know it: each calls thinking by a name of its own and leaves out the other."""
        if message["role"] != "assistant":
            return message
        content = message["content"]
        for token in self.tokenizer.all_special_tokens:
            # Spelled out by a model in letters; in a prompt it would end the turn.
            content = content.replace(token, "")
        thinking = message.get("thinking")
        extra = {"thinking": thinking, "reasoning_content": thinking} if thinking else {}
        return {"role": "assistant", "content": content, **extra}

    def _render(self, messages: Sequence[Message], place: str, reply: bool = True) -> str:
        from jinja2 import TemplateError

        switch = {"enable_thinking": self._thinking} if self._switch and self._thinking is not None else {}
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=reply, **switch
                )
            )
        except TemplateError as error:
            raise ToolkitError(f"{place}: the chat template refuses these messages: {error}") from error
