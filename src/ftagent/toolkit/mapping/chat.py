"""A tokenizer's chat template: rendering, and what rendering small probes tells about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ftagent.toolkit.data import Message
from ftagent.toolkit.errors import ToolkitError

PROBE = "qzjxprobe"
"""Text that no template writes by itself."""
THINK_TAGS = ("<think>", "</think>")


class RefusedMessages(Exception):
    """Messages that a template or a map function cannot write; the text is the reason."""


class Chat:
    """`tokenizer` with the chat template `template`. Probes are rendered when they are first asked for.

    `enable_thinking` is given to a template that has such a switch; None leaves the template's default.
    """

    def __init__(self, tokenizer: Any, template: str | None, enable_thinking: bool | None = None) -> None:
        if not (template or getattr(tokenizer, "chat_template", None)):
            raise ToolkitError(
                "the model's tokenizer has no chat template; give an instruct model, or map_function: chatml"
            )
        self.tokenizer = tokenizer
        self.source = str(template or tokenizer.get_chat_template())
        self.enable_thinking = enable_thinking

    def render(self, messages: Sequence[Message], generation_prompt: bool = False) -> str:
        """The text of `messages`. RefusedMessages: the template raises."""
        switch = (
            {} if self.enable_thinking is None or not self.has_switch else {"enable_thinking": self.enable_thinking}
        )
        return self._render(messages, generation_prompt, **switch)

    @cached_property
    def has_switch(self) -> bool:
        """Whether the template can be told not to think."""
        return "enable_thinking" in self.source

    @cached_property
    def thinks_by_default(self) -> bool:
        """False for a template whose switch is off unless it is turned on."""
        if not self.has_switch:
            return True
        default, on = (self._render([_said("user")], True, **switch) for switch in ({}, {"enable_thinking": True}))
        return default == on

    @cached_property
    def takes_thinking(self) -> bool:
        """Whether the template itself writes a reply's reasoning, from `reasoning_content` or `thinking`."""
        reply = {**_said("assistant"), **with_thinking(PROBE)}
        return self._shows([_said("user"), reply])

    def require_text(self) -> None:
        """Raises ToolkitError for a template that wants contents in another form than text, as those of images do."""
        try:
            shown = PROBE in self.render([{"role": "user", "content": PROBE}])
        except RefusedMessages as error:
            raise ToolkitError(f"the model's chat template cannot write a user's text: {error}") from error
        if not shown:
            raise ToolkitError("the model's chat template leaves out contents that are plain text; give a text model")

    @cached_property
    def takes_system(self) -> bool:
        """False for a template that refuses a system message, or leaves it out."""
        return self._shows([{"role": "system", "content": PROBE}, _said("user")])

    @cached_property
    def added_tokens(self) -> re.Pattern[str] | None:
        """Finds special tokens, and added tokens that the template puts around turns."""
        try:
            turns = self.render([_said("user"), _said("assistant"), _said("user")], generation_prompt=True)
        except RefusedMessages:
            turns = self.source
        found = set(self.tokenizer.all_special_tokens)
        for token in self.tokenizer.added_tokens_decoder.values():
            structural = token.content in turns and token.content not in THINK_TAGS
            if token.special or (structural and not token.content.isspace()):
                found.add(token.content)
        # The longest first, as tokenizers match them.
        names = sorted(found, key=lambda name: (-len(name), name))
        return re.compile("|".join(re.escape(name) for name in names)) if names else None

    def _shows(self, messages: Sequence[Message]) -> bool:
        try:
            return PROBE in self.render(messages)
        except RefusedMessages:
            return False

    def _render(self, messages: Sequence[Message], generation_prompt: bool, **switch: bool) -> str:
        from jinja2 import TemplateError

        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(messages), chat_template=self.source, tokenize=False,
                    add_generation_prompt=generation_prompt, **switch,
                )
            )  # fmt: skip
        except (TemplateError, ValueError, TypeError) as error:
            raise RefusedMessages(f"the chat template refuses these messages: {error}") from error


def with_thinking(text: str) -> Message:
    """The keys under which templates look for a reply's reasoning."""
    return {"reasoning_content": text, "thinking": text}


def _said(role: str) -> Message:
    return {"role": role, "content": "a"}
