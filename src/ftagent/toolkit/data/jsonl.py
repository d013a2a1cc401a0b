"""JSONL files of questions, read and validated line by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftagent.toolkit.data.sources import fail, json_source
from ftagent.toolkit.data.types import ROLES, Message, Question
from ftagent.toolkit.errors import ToolkitError


def read_questions(path: Path) -> list[Question]:
    """Rows of a questions file, in order. Ids are unique; the last message is not the assistant's.

    Raises ToolkitError with file and line for anything else, and for a file without rows.
    """
    rows = []
    seen: dict[str, int] = {}
    source = json_source(path, fail)
    for line, value in source.rows:
        place = source.place(line)
        if not isinstance(value.get("id"), str | int) or isinstance(value["id"], bool):
            raise ToolkitError(f'{place}: key "id" must be a string')
        identity = str(value["id"])
        if identity in seen:
            raise ToolkitError(f"{place}: id {identity!r} is already that of line {seen[identity]}")
        seen[identity] = line
        messages = _messages(value, place)
        if messages[-1]["role"] == "assistant":
            raise ToolkitError(f"{place}: the last message is the assistant's, so there is nothing to predict")
        rows.append(Question(identity, messages, line))
    if not rows:
        raise ToolkitError(f"{path}: has no rows")
    return rows


def _messages(value: dict[str, Any], place: str) -> tuple[Message, ...]:
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ToolkitError(f'{place}: key "messages" must be a list of at least one message')
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise ToolkitError(f"{place}: message {number} must be an object, not {type(message).__name__}")
        if message.get("role") not in ROLES:
            raise ToolkitError(f"{place}: message {number} has role {message.get('role')!r}; valid: {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise ToolkitError(f'{place}: message {number}: "content" must be a string')
    return tuple({"role": message["role"], "content": message["content"]} for message in messages)
