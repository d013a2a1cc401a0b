"""Replies with a form: a pydantic model in, a validated object out, with a bounded conversation to repair what is not.

Every try is a call like any other: recorded, charged, under the cap. Long texts such as code travel in fenced
files, never inside JSON strings, where models forget to escape them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ftagent.core.errors import NoUsableReply
from ftagent.core.types import CallPlace, Files
from ftagent.llm.blocks import Parsed, candidates, decode, parse
from ftagent.llm.client import ChatClient
from ftagent.llm.thinking import without_thinking
from ftagent.llm.types import ChatReply, Message, Role

T = TypeVar("T", bound=BaseModel)
_R = TypeVar("_R")
MOST_FILES = 200
MOST_CHARACTERS = 2_000_000
"""Of all files of a reply."""
_SHOWN_HEAD, _SHOWN_TAIL = 3000, 1000
"""Characters of a bad reply that go back to the model."""
_SHOWN_PROBLEMS = 5

_HELD = "Answer with one JSON object."
_OBJECT = """Answer with one JSON object in a fenced block:

```json
{{...}}
```

It follows this JSON schema:
{schema}"""
_HEADER = """First comes one JSON object in a fenced block that begins with ```json. It follows this JSON schema:
{schema}

After it come the files. """
_FILES = """Write each file whole, in a fenced block of its own, directly after a line with its name:

### file: folder/name.py
```python
the whole file
```

Give a file that itself contains ``` a longer fence: ```` before and after it."""
_REPAIR = """Your last reply could not be used: {problem}.
Answer again, completely, in the form that was asked for."""


class _Unusable(Exception):
    """Why a reply cannot be used, as the model is told: one line without a full stop."""


async def ask(
    client: ChatClient,
    role: Role,
    place: CallPlace,
    messages: Sequence[Message],
    reply_type: type[T],
    tries: int = 3,
    check: Callable[[T], None] | None = None,
) -> T:
    """What the model answers, as a `reply_type`; types are strict, numbers finite.

    `check` raises ValueError, with a line for the model, where an answer of the right form is still wrong. Raises
    NoUsableReply after `tries` replies, and what `ChatClient.chat` raises.
    """
    schema = _schema(reply_type)
    held = client.follows_schema(role)
    form = _HELD if held else _OBJECT.format(schema=json.dumps(schema, ensure_ascii=False))

    def read(reply: ChatReply, text: str) -> T:
        found = _object(candidates(parse(text), text), reply_type)
        if check is not None:
            check(found)
        return found

    return await _converse(client, role, place, _with_form(messages, form), tries, read, schema if held else None)


async def ask_files(
    client: ChatClient,
    role: Role,
    place: CallPlace,
    messages: Sequence[Message],
    reply_type: type[T],
    tries: int = 3,
    check: Callable[[T, Files], None] | None = None,
    files_required: bool = True,
) -> tuple[T, Files]:
    """Files, and an object of `reply_type` beside them; one without required fields may be left out.

    Names are as the model wrote them: `Workspace.write` refuses those that lead elsewhere. `files_required`: a reply
    without a file is not usable. `check` and errors as for `ask`.
    """
    schema = _schema(reply_type)
    header = _HEADER.format(schema=json.dumps(schema, ensure_ascii=False)) if schema.get("properties") else ""

    def read(reply: ChatReply, text: str) -> tuple[T, Files]:
        parsed = parse(text)
        files = _files(parsed, files_required)
        if reply.finish_reason == "length":
            raise ValueError("its end is missing")  # files that would have followed are not there
        unnamed = Parsed(tuple(block for block in parsed.blocks if not block.name), parsed.rest)
        found = _object(candidates(unnamed, parsed.rest), reply_type, optional=True)
        if check is not None:
            check(found, files)
        return found, files

    return await _converse(client, role, place, _with_form(messages, header + _FILES), tries, read, None)


async def _converse(
    client: ChatClient,
    role: Role,
    place: CallPlace,
    messages: list[Message],
    tries: int,
    read: Callable[[ChatReply, str], _R],
    schema: Mapping[str, Any] | None,
) -> _R:
    """Ask until a reply reads, telling the model each time what was wrong."""
    problem = ""
    for number in range(1, tries + 1):
        reply = await client.chat(role, place, messages, schema)
        try:
            return _usable(reply, read)
        except _Unusable as error:
            problem = str(error)
        if number < tries:
            said = _shortened(reply.content) if reply.content.strip() else "(nothing)"
            messages = [*messages, Message("assistant", said), Message("user", _REPAIR.format(problem=problem))]
    raise NoUsableReply(f"{role}: no usable reply in {tries} {'try' if tries == 1 else 'tries'}: {problem}")


def _usable(reply: ChatReply, read: Callable[[ChatReply, str], _R]) -> _R:
    """What `read` makes of a reply. Raises _Unusable."""
    if reply.refusal:
        raise _Unusable(f"the model refused ({_line(reply.refusal)})")
    if reply.finish_reason == "content_filter":
        raise _Unusable("the provider's content filter stopped it")
    cut = f"it was cut off at {reply.usage.completion or 'too many'} tokens; answer shorter"
    text = without_thinking(reply).content
    if not text.strip():
        raise _Unusable(cut if reply.finish_reason == "length" else "it was empty")
    try:
        return read(reply, text)
    except ValueError as error:
        raise _Unusable(cut if reply.finish_reason == "length" else _line(str(error))) from None


def _object(texts: list[str], reply_type: type[T], optional: bool = False) -> T:
    """The first of `texts` that is what is wanted. Raises ValueError about the one that came closest."""
    if not texts and not optional:
        raise ValueError("it holds no JSON object; give one in a block that begins with ```json and ends with ```")
    malformed: list[ValueError] = []
    mistaken: list[ValueError] = []
    for text in texts:
        try:
            document = decode(text)
        except ValueError as error:
            malformed.append(error)
            continue
        try:
            return _validated(document, reply_type)
        except ValueError as error:
            mistaken.append(error)
    if errors := [*mistaken, *malformed]:
        raise errors[0]
    try:
        return _validated({}, reply_type)
    except ValueError as error:
        raise ValueError(f"the JSON object in a block that begins with ```json is missing ({error})") from None


def _validated(document: dict[str, Any], reply_type: type[T]) -> T:
    # Through JSON, where strict means JSON's types: a list is fine for a tuple, a text is no number.
    text = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    try:
        return reply_type.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = [_problem(dict(one)) for one in error.errors(include_url=False, include_context=False)]
        more = [f"and {len(problems) - _SHOWN_PROBLEMS} more"] if len(problems) > _SHOWN_PROBLEMS else []
        raise ValueError("; ".join([*problems[:_SHOWN_PROBLEMS], *more])) from None


def _problem(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    where = ".".join(str(part) for part in error["loc"])
    shown = "" if error["type"] == "missing" else f" (given: {_line(json.dumps(error['input'], default=str), 80)})"
    return f"{where}: {message[:1].lower()}{message[1:]}{shown}" if where else message


def _files(parsed: Parsed, required: bool) -> Files:
    for block in parsed.blocks:
        if not block.closed:
            what = f"the block of {_line(block.name, 80)}" if block.name else "the last block"
            raise ValueError(f"{what} has no end; close it, and give a file that contains ``` a longer fence (````)")
    files = {block.name: block.text for block in parsed.blocks if block.name}
    size = sum(map(len, files.values()))
    if len(files) > MOST_FILES or size > MOST_CHARACTERS:
        raise ValueError(
            f"it holds {len(files)} files of {size} characters; at most {MOST_FILES} files of {MOST_CHARACTERS} "
            "characters together are possible"
        )
    if required and not files:
        blocks = f"{len(parsed.blocks)} blocks without a name" if parsed.blocks else "no fenced block"
        raise ValueError(f"it holds no file but {blocks}; write a line `### file: NAME` directly before each file")
    return files


def _schema(reply_type: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema without titles, which only repeat the names of fields."""

    def untitled(value: Any, names: bool = False) -> Any:
        if isinstance(value, dict):
            kept = value.items() if names else [(k, v) for k, v in value.items() if k != "title"]
            return {key: untitled(item, key in ("properties", "$defs")) for key, item in kept}
        return [untitled(item) for item in value] if isinstance(value, list) else value

    schema: dict[str, Any] = untitled(reply_type.model_json_schema())
    return schema


def _with_form(messages: Sequence[Message], form: str) -> list[Message]:
    """The form belongs to the last message: many providers refuse two of the user's in a row."""
    if not messages or messages[-1].role != "user":
        return [*messages, Message("user", form)]
    last = messages[-1]
    return [*messages[:-1], replace(last, content=f"{last.content.rstrip()}\n\n{form}")]


def _shortened(text: str) -> str:
    left_out = len(text) - _SHOWN_HEAD - _SHOWN_TAIL
    if left_out <= 0:
        return text
    return f"{text[:_SHOWN_HEAD]}\n[… {left_out} characters left out …]\n{text[-_SHOWN_TAIL:]}"


def _line(text: str, most: int = 600) -> str:
    words = " ".join(text[: 4 * most].split()).rstrip(".")
    return words if len(words) <= most else words[:most] + "…"
