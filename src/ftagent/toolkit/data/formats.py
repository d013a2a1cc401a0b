"""The formats of training data: how a row is recognised, read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ftagent.toolkit.data import conversation_formats as conversations
from ftagent.toolkit.data import pair_formats as pairs
from ftagent.toolkit.data.messages import MESSAGE_KEYS, MessageKeys, RowError
from ftagent.toolkit.data.types import Conversation, Preference, Problem

Kind = Literal["conversation", "preference", "problem"]
Item = Conversation | Preference | Problem
Row = dict[str, Any]
ID_KEYS = ("conversation_id", "id")
Read = Callable[[Row], tuple[Sequence[Any], MessageKeys]]
"""Row → (lists of messages, or messages and an answer; keys of messages)."""
Write = Callable[[Any, dict[str, Any], bool], Row]
"""Item, its extra (keys that the row takes up are removed), whether texts stand for messages → row without extra."""


@dataclass(frozen=True)
class Format:
    """One way to lay out rows. `keys` say something about the messages; every other key is extra."""

    name: str
    kind: Kind
    keys: frozenset[str]
    says: str
    matches: Callable[[Row], bool]
    read: Read
    write: Write
    is_text: Callable[[Any], bool]
    """Whether an item can be written with texts in place of lists of messages."""
    prompts: tuple[str, ...]
    """Names of the prompt, of which a row's first is read; the others are extra."""
    texts: frozenset[str]
    """Keys whose cells in a CSV file are text, whatever it looks like."""


def _has(*keys: str) -> Callable[[Row], bool]:
    return lambda row: all(key in row for key in keys)


def _never(item: Any) -> bool:
    return False


def _format(name: str, kind: Kind, keys: str, says: str, matches: Any, read: Any, write: Any,
            is_text: Any = _never, texts: str = "", prompts: tuple[str, ...] = ()) -> Format:  # fmt: skip
    names = frozenset(texts.split())
    return Format(name, kind, frozenset(keys.split()), says, matches, read, write, is_text, prompts, names)


# In the order in which they are tried: the more telling keys first.
FORMATS: Mapping[str, Format] = {
    found.name: found
    for found in (
        _format("conversations", "conversation", "conversation_pair system_prompt", "conversation_pair",
                _has("conversation_pair"), conversations.read_pair, conversations.write_pair, texts="system_prompt"),
        _format("sharegpt_preference", "preference", "conversations chosen rejected system",
                "conversations, chosen and rejected", _has("conversations", "chosen", "rejected"),
                pairs.read_turns_preference, pairs.write_turns_preference, texts="system"),
        _format("preference", "preference", "system chosen rejected", "chosen and rejected",
                _has("chosen", "rejected"), pairs.read_preference, pairs.write_preference,
                pairs.is_text_preference, texts="prompt question system chosen rejected",
                prompts=pairs.PREFERENCE_PROMPTS),
        _format("messages", "conversation", "messages", "messages",
                _has("messages"), conversations.read_openai, conversations.write_openai),
        _format("sharegpt", "conversation", "conversations system", "conversations",
                _has("conversations"), conversations.read_sharegpt, conversations.write_sharegpt, texts="system"),
        _format("alpaca", "conversation", "instruction input output system history", "instruction and output",
                _has("instruction", "output"), conversations.read_alpaca, conversations.write_alpaca,
                texts="instruction input output system"),
        _format("prompt_completion", "conversation", "prompt completion", "prompt and completion",
                _has("prompt", "completion"), conversations.read_completion, conversations.write_completion,
                conversations.is_text_completion, texts="prompt completion"),
        _format("problems", "problem", "answer", "a prompt (or question, problem, messages) and answer",
                lambda row: "answer" in row and pairs.prompt_key(row, pairs.PROBLEM_PROMPTS) is not None,
                pairs.read_problem, pairs.write_problem, pairs.is_text_problem,
                texts="prompt question problem answer", prompts=pairs.PROBLEM_PROMPTS),
    )
}  # fmt: skip


def detect(row: Row, kind: Kind | None = None) -> Format | None:
    """The format of a row, of `kind` where one is given; None where none fits."""
    for found in FORMATS.values():
        if kind in (None, found.kind) and found.matches(row):
            if kind is None and found.name == "messages" and pairs.is_problem(row):
                return FORMATS["problems"]
            return found
    return None


def parse(form: Format, row: Row, line: int) -> Item:
    """What a row says. Raises RowError with every fault of the row."""
    try:
        parts, keys = form.read(row)
    except KeyError as error:
        raise RowError(("format", f'key "{error.args[0]}" is missing')) from error
    identity, extra = "", {}
    used = form.keys
    if form.prompts:
        used = used | {pairs.prompt_key(row, form.prompts) or ""}
    if not row.keys() <= used:
        extra = {key: value for key, value in row.items() if key not in used}
        identity = _take_id(extra)
    if keys:
        held = extra.get(MESSAGE_KEYS, {})
        if not isinstance(held, dict):
            raise RowError(("format", f'"{MESSAGE_KEYS}" must be an object; rename it'))
        extra[MESSAGE_KEYS] = {**held, **keys}
    if form.kind == "conversation":
        return Conversation(tuple(parts), line, identity, extra)
    if form.kind == "preference":
        prompt, chosen, rejected = (tuple(part) for part in parts)
        return Preference(prompt, chosen, rejected, line, identity, extra)
    return Problem(tuple(parts[0]), parts[1], line, identity, extra)


def unparse(form: Format, item: Item, text: bool = False) -> Row:
    """The row of an item, so that `parse` gives the same. Raises RowError where the format cannot hold it."""
    extra = dict(item.extra)
    body = form.write(item, extra, text)
    names = ID_KEYS if form.name == "conversations" else (*reversed(ID_KEYS),)
    if item.id:
        key = next((name for name in names if _names_id(name, extra)), None)
        if key is None:
            raise RowError(("clash", f"has {' and '.join(ID_KEYS)} among its other keys; rename one"))
        body = {key: item.id, **body}
    elif any(_is_id(extra.get(name)) for name in ID_KEYS):
        raise RowError(("clash", "an id is among its other keys; rename it"))
    if clash := (form.keys | body.keys()) & extra.keys():
        raise RowError(("clash", f'has a key "{min(clash)}" of its own, which {form.name} uses; rename it'))
    row = {**body, **extra}
    if (found := detect(row)) is not form:
        name = found.name if found else "nothing that is known"
        raise RowError(("clash", f"its other keys would make the row look like {name}; rename them"))
    return row


def _names_id(name: str, extra: Mapping[str, Any]) -> bool:
    """Whether an id that is written as `name` is what reading finds first."""
    earlier = ID_KEYS[: ID_KEYS.index(name)]
    return name not in extra and not any(_is_id(extra.get(other)) for other in earlier)


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""


def _take_id(extra: dict[str, Any]) -> str:
    for name in ID_KEYS:
        if name in extra and _is_id(extra[name]):
            return str(extra.pop(name))
    return ""


def describe(row: Row) -> str:
    """The keys of a row, for an error."""
    names = [repr(str(key)[:30]) for key in list(row)[:8]]
    return ", ".join(names) + (", …" if len(row) > 8 else "") if names else "no keys"
