"""The built-in map functions. All write what the tokenizer's own chat template writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftagent.toolkit.data import Message
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.mapping.chat import Chat, RefusedMessages, with_thinking

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
HARMONY = "<|channel|>"
"""A mark that only the templates of gpt-oss have."""
_BLOCK_AT_END = re.compile(r"<think>\s*(</think>\s*)?\Z")
_GEMMA_4 = "<|channel>thought\n"


@dataclass(frozen=True)
class TemplateFunction:
    """What the chat template writes; where it has no place for reasoning, a <think> block before the content.

    A template of the family has one of `marks`.
    """

    name: str = "auto"
    marks: tuple[str, ...] = ()

    def template(self, tokenizer: Any) -> str | None:
        """None. Raises ToolkitError when the tokenizer's template is of another family."""
        own = getattr(tokenizer, "chat_template", None)
        if own and self.marks and not any(mark in str(own) for mark in self.marks):
            raise ToolkitError(
                f"map_function: {self.name} does not fit the model: its chat template has no "
                f"{' and no '.join(self.marks)}; use auto"
            )
        return None

    def thinks(self, chat: Chat) -> bool:
        """As the template does by default; never for harmony, whose analysis is learnt when asked for."""
        return chat.thinks_by_default and HARMONY not in chat.source

    def prompt(self, chat: Chat, messages: Sequence[Message]) -> str:
        return chat.render(_arrange(chat, messages), generation_prompt=True)

    def reply(self, chat: Chat, messages: Sequence[Message], prompt: str) -> str:
        whole = chat.render(_arrange(chat, messages))
        thinking = "" if chat.takes_thinking else messages[-1].get("thinking", "").strip("\n")
        if whole.startswith(prompt) and not thinking:
            return whole[len(prompt) :]
        block = _BLOCK_AT_END.search(prompt)
        opened = block is not None and block[1] is None
        if whole.startswith(prompt):
            rest = whole[len(prompt) :]
        elif block and whole.startswith(prompt[: block.start()]):
            # The template writes the block of a prompt otherwise in a turn, or not at all.
            rest = whole[block.start() :]
            if opened and rest.startswith("<think>"):
                return rest.removeprefix("<think>").lstrip()
        else:
            raise RefusedMessages(
                "the chat template does not begin a reply as it ends a prompt, so labels cannot be placed; "
                "write a map function for it"
            )
        if opened:
            return f"{thinking}\n</think>\n\n{rest}"
        if _GEMMA_4.strip() in chat.source:
            return f"{_GEMMA_4}{thinking}\n<channel|>{rest}"
        return f"<think>\n{thinking}\n</think>\n\n{rest}" if thinking else rest


@dataclass(frozen=True)
class ChatML(TemplateFunction):
    """ChatML; brings the template itself where the tokenizer has none or one of another form."""

    name: str = "chatml"

    def template(self, tokenizer: Any) -> str | None:
        own = getattr(tokenizer, "chat_template", None)
        if own and "<|im_start|>" in str(own):
            return None
        missing = [token for token in ("<|im_start|>", "<|im_end|>") if token not in tokenizer.get_vocab()]
        if missing:
            raise ToolkitError(f"map_function: chatml does not fit the model: its vocabulary has no {missing[0]}")
        return CHATML


def builtin_functions() -> dict[str, TemplateFunction]:
    """By name, as `map_function` gives it."""
    functions = (
        TemplateFunction(),
        TemplateFunction("qwen", ("<|im_start|>",)),
        TemplateFunction("gpt_oss", (HARMONY,)),
        TemplateFunction("deepseek", ("<｜Assistant｜>",)),
        TemplateFunction("gemma", ("<start_of_turn>", "<|turn>")),
        ChatML(),
    )
    return {function.name: function for function in functions}


def _arrange(chat: Chat, messages: Sequence[Message]) -> list[Message]:
    """Messages as the template takes them: reasoning under its keys, or none; a system text it would refuse
    at the beginning of the first user message."""
    arranged = []
    for message in messages:
        thinking = message.get("thinking", "") if chat.takes_thinking else ""
        plain = {"role": message["role"], "content": message["content"]}
        arranged.append({**plain, **with_thinking(thinking)} if thinking else plain)
    if len(arranged) > 1 and (arranged[0]["role"], arranged[1]["role"]) == ("system", "user") and not chat.takes_system:
        merged = f"{arranged[0]['content']}\n\n{arranged[1]['content']}"
        arranged[:2] = [{"role": "user", "content": merged}]
    return arranged
