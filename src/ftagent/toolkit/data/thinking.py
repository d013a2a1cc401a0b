"""Reasoning inside a text, `<think>…</think>` before the answer, and as a key of its own."""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"
_HEAD, _JOINT = f"{OPEN}\n", f"\n{CLOSE}\n\n"


def split_thinking(text: str) -> tuple[str, str] | None:
    """(thinking, content) of a text that begins with one `<think>…</think>`; None where that is not unambiguous.

    Exactly what `join_thinking` put around them is taken away, else the line breaks at the edges.
    """
    if not text.startswith(OPEN) or text.count(OPEN) != 1 or text.count(CLOSE) != 1:
        return None
    if text.startswith(_HEAD) and _JOINT in text[len(_HEAD) :]:
        thinking, content = text[len(_HEAD) :].split(_JOINT)
        return thinking, content
    thinking, content = text[len(OPEN) :].split(CLOSE)
    return thinking.strip("\r\n"), content.lstrip("\r\n")


def join_thinking(thinking: str, content: str) -> str:
    """One text of both, as the templates of Qwen and DeepSeek write them."""
    return f"{_HEAD}{thinking}{_JOINT}{content}"


def is_joinable(thinking: str, content: str) -> bool:
    """Whether `split_thinking` gives both back from one text."""
    return split_thinking(join_thinking(thinking, content)) == (thinking, content)
