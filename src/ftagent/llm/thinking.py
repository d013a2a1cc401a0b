"""Telling a reply from the thinking that some models put before it."""

from __future__ import annotations

import re
from dataclasses import replace

from ftagent.llm.types import ChatReply

_TAG = re.compile(r"<(/?)think>")
_CLOSING_LINE = re.compile(r"^[ \t]*</think>[ \t]*$", re.MULTILINE)


def without_thinking(reply: ChatReply) -> ChatReply:
    """The reply with the `<think>…</think>` that it begins with moved to its reasoning.

    Only what the reply begins with: code that an agent writes may hold these tags itself.
    """
    content = reply.content
    if content.lstrip().startswith("<think>"):
        thought, rest = _split_thinking(content.lstrip())
    elif (closing := _CLOSING_LINE.search(content)) and "<think>" not in content[: closing.start()]:
        # Some templates put the opening tag at the end of the prompt.
        thought, rest = content[: closing.start()], content[closing.end() :]
    else:
        return reply
    reasoning = "\n".join(part for part in (reply.reasoning, thought.strip()) if part)
    return replace(reply, content=rest.lstrip(), reasoning=reasoning)


def _split_thinking(content: str) -> tuple[str, str]:
    depth, last = 0, None
    for tag in _TAG.finditer(content):
        depth += -1 if tag.group(1) else 1
        last = tag if tag.group(1) else last
        if depth == 0:
            break
    # Never closed as often as opened: the last closing tag; without any, everything is thought.
    if last is None:
        return content.removeprefix("<think>"), ""
    return content[len("<think>") : last.start()], content[last.end() :]
