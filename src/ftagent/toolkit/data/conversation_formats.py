"""Rows that hold one conversation, in the ways in which people write them."""

from __future__ import annotations

from typing import Any

from ftagent.toolkit.data.messages import (
    MessageKeys,
    RowError,
    as_text,
    read_messages,
    read_turns,
    write_messages,
    write_turns,
)
from ftagent.toolkit.data.thinking import split_thinking
from ftagent.toolkit.data.types import Conversation, Message

Row = dict[str, Any]
Messages = tuple[list[Message], MessageKeys]


def read_pair(row: Row) -> Messages:
    """{"conversation_pair": [messages], "system_prompt": text or nothing}"""
    system = system_message(row, "system_prompt")
    messages, keys = read_messages(row["conversation_pair"], "conversation_pair", 1 + len(system))
    return with_system(system, messages, "system_prompt"), keys


def write_pair(item: Conversation, extra: dict[str, Any], text: bool) -> Row:
    """The row of this product; the system prompt stands outside of the turns."""
    first = item.messages[0]
    if first["role"] != "system" or len(item.messages) == 1 or item.messages[1]["role"] == "system":
        return {"conversation_pair": write_messages(item.messages, extra)}
    rest = write_messages(item.messages[1:], extra, first=2)
    return {"system_prompt": first["content"], "conversation_pair": rest}


def read_openai(row: Row) -> Messages:
    """{"messages": [messages]}"""
    return read_messages(row["messages"], "messages")


def write_openai(item: Conversation, extra: dict[str, Any], text: bool) -> Row:
    """As OpenAI's and most trainers' files."""
    return {"messages": write_messages(item.messages, extra)}


def read_sharegpt(row: Row) -> Messages:
    """{"conversations": [{"from", "value"}], "system": text or nothing}"""
    system = system_message(row, "system")
    messages, keys = read_turns(row["conversations"], "conversations", 1 + len(system))
    return with_system(system, messages, "system"), keys


def write_sharegpt(item: Conversation, extra: dict[str, Any], text: bool) -> Row:
    """Thinking becomes part of the text."""
    return {"conversations": write_turns(item.messages, extra)}


def read_alpaca(row: Row) -> Messages:
    """{"instruction", "output"[, "input", "system", "history": [[user, assistant]]]}"""
    said = text_of(row, "instruction")
    more = text_of(row, "input", default="")
    messages = system_message(row, "system")
    history = row.get("history") or []
    if not isinstance(history, list):
        raise RowError(("format", 'key "history" must be a list of pairs of texts'))
    for number, turns in enumerate(history, start=1):
        if not isinstance(turns, list) or [type(turn) for turn in turns] != [str, str]:
            raise RowError(
                ("format", f'"history" {number} must be a pair of texts, what the user and the assistant said')
            )
        messages += [{"role": "user", "content": turns[0]}, {"role": "assistant", "content": turns[1]}]
    prompt = "\n".join(part for part in (said, more) if part.strip()) if more else said
    messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": text_of(row, "output")}]
    return read_messages(messages, "instruction")


def write_alpaca(item: Conversation, extra: dict[str, Any], text: bool) -> Row:
    """Holds an optional system prompt and then user and assistant turns that alternate; raises RowError for others."""
    system = item.messages[0]["content"] if item.messages[0]["role"] == "system" else None
    turns = item.messages if system is None else item.messages[1:]
    roles = [message["role"] for message in turns]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise RowError(("unfit", "alpaca needs user and assistant turns that alternate"))
    texts = [as_text(message, number) for number, message in enumerate(turns, start=1)]
    row: Row = {"instruction": texts[-2], "input": "", "output": texts[-1]}
    if system is not None:
        row["system"] = system
    if len(texts) > 2:
        row["history"] = [texts[place : place + 2] for place in range(0, len(texts) - 2, 2)]
    return row


def read_completion(row: Row) -> Messages:
    """{"prompt", "completion"}, each a text or a list of messages."""
    said, reply = row["prompt"], row["completion"]
    if type(said) is str and type(reply) is str and said and reply and reply[0] != "<":
        # The same as below, for what nearly every such file holds.
        return read_messages(
            [{"role": "user", "content": said}, {"role": "assistant", "content": reply}], "prompt and completion"
        )
    prompt, keys = text_or_messages(said, "prompt", "user")
    completion, more = text_or_messages(reply, "completion", "assistant", 1 + len(prompt))
    return prompt + completion, {**keys, **more}


def write_completion(item: Conversation, extra: dict[str, Any], text: bool) -> Row:
    """The completion is the last reply and what follows it."""
    if text:
        return {"prompt": item.messages[0]["content"], "completion": as_text(item.messages[1], 2)}
    messages = write_messages(item.messages, extra)
    replies = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    if not replies or not replies[-1]:
        raise RowError(("unfit", "prompt_completion needs a turn before the last reply, and this has none"))
    return {"prompt": messages[: replies[-1]], "completion": messages[replies[-1] :]}


def is_text_completion(item: Conversation) -> bool:
    """Whether it is one question and one reply."""
    roles = [message["role"] for message in item.messages]
    return (
        roles == ["user", "assistant"]
        and is_text(item.messages[:1], "user")
        and is_text(item.messages[1:], "assistant")
    )


def is_text(messages: Any, role: str) -> bool:
    """Whether a list of messages can be written as a text that reads as the same."""
    if len(messages) != 1 or messages[0]["role"] != role:
        return False
    content, thinking = messages[0]["content"], messages[0].get("thinking")
    if thinking is None:
        return not content.lstrip().startswith("[")
    try:
        return split_thinking(as_text(messages[0])) is not None
    except RowError:
        return False


def text_or_messages(value: Any, key: str, role: str, first: int = 1) -> Messages:
    """A text is one message of `role`."""
    if isinstance(value, str):
        value = [{"role": role, "content": value}]
    elif isinstance(value, dict):
        value = [value]
    elif not isinstance(value, list):
        raise RowError(("format", f'key "{key}" must be a text or a list of messages, not {type(value).__name__}'))
    try:
        messages, keys = read_messages(value, key, first)
    except RowError as error:
        raise RowError(*((kind, f"{key}: {text}") for kind, text in error.faults)) from error
    return list(messages), keys


def text_of(row: Row, key: str, default: str | None = None) -> str:
    """A text. Raises RowError where it is something else."""
    value = row.get(key, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise RowError(("format", f'key "{key}" must be a text, not {type(value).__name__}'))
    return value


def system_message(row: Row, key: str) -> list[Message]:
    """The system prompt that stands beside the turns, where there is one that says something."""
    text = text_of(row, key, default="") if key in row else ""
    return [{"role": "system", "content": text}] if text.strip() else []


def with_system(system: list[Message], messages: list[Message], key: str) -> list[Message]:
    """All messages. Raises RowError where there are two system prompts."""
    if system and messages and messages[0]["role"] == "system":
        raise RowError(("role_order", f'has "{key}" and a system turn; keep one of them'))
    return system + messages if system else messages
