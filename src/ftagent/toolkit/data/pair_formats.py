"""Rows that hold two replies to one prompt, and rows that hold a prompt and the answer that a verifier wants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ftagent.toolkit.data.conversation_formats import is_text, system_message, text_or_messages, with_system
from ftagent.toolkit.data.messages import (
    MESSAGE_KEYS,
    MessageKeys,
    RowError,
    as_text,
    read_turns,
    write_messages,
    write_turns,
)
from ftagent.toolkit.data.types import Message, Preference, Problem

Row = dict[str, Any]
Parts = tuple[list[list[Message]], MessageKeys]
PREFERENCE_PROMPTS = ("prompt", "question")
PROBLEM_PROMPTS = ("prompt", "question", "problem", "messages")
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


def read_preference(row: Row) -> Parts:
    """{"chosen", "rejected"[, "prompt" or "question", "system"]}, each a text or a list of messages.

    Without a prompt, or with lists that begin with it, what both lists begin with is the prompt.
    """
    replies = {key: _reply(row, key) for key in ("chosen", "rejected")}
    key = prompt_key(row, PREFERENCE_PROMPTS)
    keys: MessageKeys = {}
    prompt: list[Message] = []
    if key is not None:
        prompt, keys = text_or_messages(row[key], key, "user")
    elif len(replies["chosen"][0]) == 1 or len(replies["rejected"][0]) == 1:
        raise RowError(("format", 'key "prompt" is missing, and "chosen" and "rejected" do not repeat it'))
    chosen, rejected = (messages for messages, _ in replies.values())
    for name, (_, held) in replies.items():
        keys |= {f"{name} {number}": entry for number, entry in held.items()}
    common = _common(chosen, rejected)
    repeats = chosen[0]["role"] != "assistant" or rejected[0]["role"] != "assistant"
    if key is None:
        prompt = chosen[:common]
    elif repeats and not chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:
        # Some files give the last question as the prompt and repeat the turns before it in the replies.
        if chosen[:common][-len(prompt) :] != prompt:
            raise RowError(("format", '"chosen" and "rejected" must be replies, or both begin with the prompt'))
        prompt = chosen[:common]
    if repeats:
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    prompt = with_system(system_message(row, "system"), prompt, "system")
    return [prompt, chosen, rejected], keys


def _reply(row: Row, key: str) -> tuple[list[Message], MessageKeys]:
    value = row[key]
    if isinstance(value, str) and prompt_key(row, PREFERENCE_PROMPTS) is None:
        pieces = _SPEAKER.split(value)
        if len(pieces) > 3 and not pieces[0].strip():
            roles = {"Human": "user", "Assistant": "assistant"}
            value = [
                {"role": roles[who], "content": said.strip()}
                for who, said in zip(pieces[1::2], pieces[2::2], strict=True)
            ]
    return text_or_messages(value, key, "assistant")


def _common(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """How many messages both begin with, up to where the assistant replies for the last time."""
    most = min(len(chosen), len(rejected)) - 1
    same = 0
    while same < most and chosen[same] == rejected[same]:
        same += 1
    while same and chosen[same - 1]["role"] == "assistant":
        same -= 1
    return same


def is_text_preference(item: Preference) -> bool:
    """Whether it is one question and two replies."""
    replies = is_text(item.chosen, "assistant") and is_text(item.rejected, "assistant")
    return replies and is_text(item.prompt, "user")


def write_preference(item: Preference, extra: dict[str, Any], text: bool) -> Row:
    """The replies without the prompt."""
    parts = {"prompt": item.prompt, "chosen": item.chosen, "rejected": item.rejected}
    if text:
        return {name: as_text(messages[0]) for name, messages in parts.items()}
    return {name: write_messages(messages, {}) for name, messages in parts.items()}


def read_turns_preference(row: Row) -> Parts:
    """{"conversations": [turns], "chosen": turn, "rejected": turn}"""
    prompt, keys = read_turns(row["conversations"], "conversations")
    parts = [with_system(system_message(row, "system"), prompt, "system")]
    for name in ("chosen", "rejected"):
        value = row[name]
        turn = {"from": "gpt", "value": value} if isinstance(value, str) else value
        messages, held = read_turns(turn if isinstance(turn, list) else [turn], name)
        keys = keys | {f"{name} {number}": entry for number, entry in held.items()}
        parts.append(messages)
    return parts, keys


def write_turns_preference(item: Preference, extra: dict[str, Any], text: bool) -> Row:
    """Holds replies of one turn; raises RowError for others."""
    if len(item.chosen) != 1 or len(item.rejected) != 1:
        raise RowError(("unfit", "sharegpt_preference holds replies of one turn, and these have several"))
    row: Row = {"conversations": write_turns(item.prompt, {})}
    row["chosen"], row["rejected"] = (write_turns(reply, {})[0] for reply in (item.chosen, item.rejected))
    return row


def prompt_key(row: Row, names: Sequence[str]) -> str | None:
    """The first of `names` that the row has."""
    return next((name for name in names if name in row), None)


def is_problem(row: Row) -> bool:
    """Whether a row of messages has an answer for a verifier, because its last turn is not the answer."""
    messages = row["messages"]
    last = messages[-1] if isinstance(messages, list) and messages else None
    return "answer" in row and isinstance(last, dict) and last.get("role") == "user"


def read_problem(row: Row) -> tuple[list[Any], MessageKeys]:
    """{"prompt" or "question", "problem", "messages"; "answer"}: prompt a text or messages, answer a text or number."""
    key = prompt_key(row, PROBLEM_PROMPTS)
    if key is None:
        raise RowError(("format", 'key "prompt" (or "question", "problem", "messages") is missing'))
    prompt, keys = text_or_messages(row[key], key, "user")
    answer = row["answer"]
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise RowError(("format", f'key "answer" must be a text or a number, not {type(answer).__name__}'))
    return [prompt, str(answer)], keys


def is_text_problem(item: Problem) -> bool:
    """Whether the prompt is one question."""
    return is_text(item.prompt, "user") and MESSAGE_KEYS not in item.extra


def write_problem(item: Problem, extra: dict[str, Any], text: bool) -> Row:
    """The prompt under that name, whatever the file called it."""
    prompt = as_text(item.prompt[0]) if text else write_messages(item.prompt, extra)
    return {"prompt": prompt, "answer": item.answer}
