"""Lists of messages as files hold them, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftagent.toolkit.data.thinking import OPEN, is_joinable, join_thinking, split_thinking
from ftagent.toolkit.data.types import ROLES, Message

MESSAGE_KEYS = "message_keys"
"""The key of `extra` with what messages hold beside role, content and thinking: {"2": {"weight": 0}}, from 1."""
_ROLES = frozenset(ROLES)
_TURN_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "model": "assistant", "bot": "assistant", "system": "system", "tool": "tool", "observation": "tool",
    "function_response": "tool",
}  # fmt: skip
_TURN_NAMES = {"user": "human", "assistant": "gpt", "system": "system", "tool": "tool"}
_THINKING = ("thinking", "reasoning_content")
_CALLS = ("tool_calls", "function_call")

MessageKeys = dict[str, dict[str, Any]]
Fault = tuple[str, str]
"""(kind, what is wrong and what would be right)."""


class RowError(Exception):
    """A row cannot be read or written. `faults`: all that is wrong with it, at least one."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(faults[0][1])
        self.faults = faults


@dataclass(frozen=True)
class Names:
    """How a file calls the parts of a message, and its roles. ShareGPT's tuples are called turns there."""

    role: str
    content: str
    roles: Mapping[str, str]


MESSAGE = Names("role", "content", {role: role for role in ROLES})
TURN = Names("from", "value", _TURN_ROLES)


def read_messages(value: Any, key: str, first: int = 1) -> tuple[list[Message], MessageKeys]:
    """Messages of {"role", "content"[, "thinking"]}, and their other keys; `first` is the number of the first one.

    Raises RowError with every fault.
    """
    try:
        # Nearly all messages of nearly all files are like this; each costs a fraction of a microsecond.
        for message in value:
            content = message["content"]
            if (
                len(message) != 2
                or message["role"] not in _ROLES
                or type(content) is not str
                or not content
                or content[0] == "<"
                or content.isspace()
            ):
                break
        else:
            if value and type(value) is list:
                return value, {}
    except (TypeError, KeyError, IndexError):
        pass
    return _read(value, key, MESSAGE, first)


def read_turns(value: Any, key: str, first: int = 1) -> tuple[list[Message], MessageKeys]:
    """The same of ShareGPT's {"from", "value"}."""
    messages = []
    try:
        for turn in value:
            content = turn["value"]
            if len(turn) != 2 or type(content) is not str or not content or content[0] == "<" or content.isspace():
                break
            messages.append({"role": _TURN_ROLES[turn["from"]], "content": content})
        else:
            if messages and type(value) is list:
                return messages, {}
    except (TypeError, KeyError, IndexError):
        pass
    return _read(value, key, TURN, first)


def _read(value: Any, key: str, names: Names, first: int) -> tuple[list[Message], MessageKeys]:
    if not isinstance(value, list) or not value:
        raise RowError(("format", f'key "{key}" must be a list of at least one message'))
    messages: list[Message] = []
    keys: MessageKeys = {}
    faults: list[Fault] = []
    for place, given in enumerate(value, start=1):
        if not isinstance(given, dict):
            faults.append(("format", f"message {place} must be an object, not {type(given).__name__}"))
            continue
        entry = {name: part for name, part in given.items() if part is not None}
        role, found = _role(entry, place, names, faults)
        calls = any(entry.get(name) for name in _CALLS)
        if calls and not _answered(value, place, names):
            faults.append(("tool_turn", f"message {place} calls a tool, but no tool turn follows; remove the call"))
        content = entry.pop(names.content, "" if calls else None)
        thinking = _thinking(entry, role, place, faults)
        if role == "assistant" and thinking is None and isinstance(content, str):
            thinking, content = split_thinking(content) or (None, content)
        if not isinstance(content, str):
            faults.append(("content", f'message {place}: "{names.content}" must be a string'))
            continue
        if not content.strip() and not calls:
            # A system prompt that says nothing is none.
            if role != "system":
                faults.append(("empty_turn", f"message {place} is empty; give it a text or remove it"))
            continue
        if not found:
            continue
        messages.append({"role": role, "content": content})
        if thinking is not None:
            messages[-1]["thinking"] = thinking
        if entry:
            keys[str(first + len(messages) - 1)] = entry
    if not faults and not messages:
        faults.append(("format", f'key "{key}" must have at least one message that is not empty'))
    if faults:
        raise RowError(*faults)
    return messages, keys


def _role(entry: dict[str, Any], place: int, names: Names, faults: list[Fault]) -> tuple[str, bool]:
    named = entry.pop(names.role, None)
    if not isinstance(named, str) or named not in names.roles:
        faults.append(("role", f"message {place} has role {_short(named)}; valid: {', '.join(names.roles)}"))
        return "", False
    return names.roles[named], True


def _thinking(entry: dict[str, Any], role: str, place: int, faults: list[Fault]) -> str | None:
    given = [entry.pop(name) for name in _THINKING if name in entry]
    if not given:
        return None
    if not all(isinstance(text, str) and text == given[0] for text in given):
        faults.append(("content", f"message {place}: {' and '.join(_THINKING)} must be one string"))
    elif role == "assistant":
        return str(given[0])
    elif given[0].strip():
        faults.append(("content", f"message {place}: only an assistant's message can have thinking"))
    return None


def _answered(value: list[Any], place: int, names: Names) -> bool:
    """Whether the turn after number `place` is a tool's."""
    after = value[place] if place < len(value) else None
    role = after.get(names.role) if isinstance(after, dict) else None
    return isinstance(role, str) and names.roles.get(role) == "tool"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def training_faults(messages: Sequence[Message]) -> list[Fault]:
    """Why a conversation cannot be trained on; empty where it can."""
    last = messages[-1]["role"] if messages else "none"
    if last == "assistant":
        return []
    faults = []
    if not any(message["role"] == "assistant" for message in messages):
        faults.append(("no_reply", "no message has role assistant, so there is nothing to learn; add the reply"))
    elif last != "tool":
        faults.append(("ends_in_user", f"ends in a {last} turn; add the assistant's reply or remove the turn"))
    return faults


def prompt_faults(messages: Sequence[Message], what: str) -> list[Fault]:
    """Why nothing can be replied to a prompt; empty where something can."""
    if not messages or messages[-1]["role"] in ("assistant", "system"):
        return [("role_order", f"{what} must end in a user turn")]
    return []


def write_messages(messages: Sequence[Message], extra: dict[str, Any], first: int = 1) -> list[dict[str, Any]]:
    """The list for a file. Keys of messages are taken out of `extra`, where they were since reading."""
    keys = _message_keys(extra, first, len(messages))
    return [{**message, **keys.get(str(number), {})} for number, message in enumerate(messages, start=first)]


def write_turns(messages: Sequence[Message], extra: dict[str, Any]) -> list[dict[str, Any]]:
    """The list of ShareGPT's turns. Raises RowError for a thinking that a text cannot hold."""
    keys = _message_keys(extra, 1, len(messages))
    return [
        {"from": _TURN_NAMES[message["role"]], "value": as_text(message, number), **keys.get(str(number), {})}
        for number, message in enumerate(messages, start=1)
    ]


def as_text(message: Message, number: int = 1) -> str:
    """The content, after the thinking where there is one. Raises RowError where that could not be told apart again."""
    thinking = message.get("thinking")
    if thinking is None:
        return message["content"]
    if not is_joinable(thinking, message["content"]):
        raise RowError(
            ("thinking", f"message {number}: has {OPEN} tags in its thinking or content, so they cannot be one text")
        )
    return join_thinking(thinking, message["content"])


def _message_keys(extra: dict[str, Any], first: int, count: int) -> Mapping[str, dict[str, Any]]:
    """The keys of messages `first` to `first + count - 1`, unless what is there is something else of that name."""
    taken = {*(MESSAGE.role, MESSAGE.content), *(TURN.role, TURN.content), *_THINKING}
    keys = extra.get(MESSAGE_KEYS)
    valid = {str(number) for number in range(first, first + count)}
    if not isinstance(keys, dict) or not keys or not keys.keys() <= valid:
        return {}
    if not all(isinstance(part, dict) and part and not taken & part.keys() for part in keys.values()):
        return {}
    del extra[MESSAGE_KEYS]
    return keys
