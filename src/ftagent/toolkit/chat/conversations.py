"""Conversations in files: presets to play, and what was said in the format that `ftagent train` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftagent.toolkit.data import Message
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.files import write_atomically


@dataclass(frozen=True)
class Turn:
    """What the user says, and what the file has as the answer ("" where it has none)."""

    user: str
    expected: str


@dataclass(frozen=True)
class Script:
    """One preset conversation."""

    id: str
    system: str
    turns: tuple[Turn, ...]


def read_scripts(path: Path) -> list[Script]:
    """The conversations of a JSON or JSONL file: ours (`conversation_pair`), OpenAI's (`messages`), or bare messages.

    Raises ToolkitError with file and place for anything else, and where nobody asks anything.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ToolkitError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    values = _values(text, path)
    if values and all(isinstance(value, dict) and "role" in value for _, value in values):
        values = [(str(path), {"messages": [value for _, value in values]})]
    scripts = [_script(value, place, number) for number, (place, value) in enumerate(values, start=1)]
    if not scripts:
        raise ToolkitError(f"{path}: has no conversation")
    return scripts


def as_document(identity: str, system: str, messages: Sequence[Message]) -> dict[str, Any]:
    """A conversation in our format."""
    return {
        "conversation_id": identity,
        "system_prompt": system,
        "conversation_pair": [dict(item) for item in messages],
    }


def save_conversation(path: Path, document: dict[str, Any]) -> int:
    """Put `document` into a file of conversations, in the place of the one with its id. Returns how many there are.

    Raises ToolkitError where the file is something else, or cannot be written.
    """
    kept: list[Any] = []
    if path.exists():
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ToolkitError(f"{path}: exists and is no file of conversations; give another name") from error
        if not isinstance(kept, list) or not all(
            isinstance(item, dict) and "conversation_pair" in item for item in kept
        ):
            raise ToolkitError(f"{path}: exists and is no file of conversations; give another name")
    same = [index for index, item in enumerate(kept) if item.get("conversation_id") == document["conversation_id"]]
    if same:
        kept[same[0]] = document
    else:
        kept.append(document)
    write_conversations(path, kept)
    return len(kept)


def write_conversations(path: Path, documents: Sequence[dict[str, Any]]) -> None:
    """Write a file in our format, whole or not at all. Raises ToolkitError."""
    try:
        write_atomically(path, json.dumps(list(documents), ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise ToolkitError(f"{path}: cannot be written: {error.strerror}") from error


def _values(text: str, path: Path) -> list[tuple[str, Any]]:
    """(place, value) of each conversation, or of each message of a file that is one list of messages."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as whole:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        if len(lines) < 2 or not all(line.lstrip().startswith("{") for _, line in lines):
            raise ToolkitError(f"{path}: not JSON: {whole}") from whole
        found = []
        for number, line in lines:
            try:
                found.append((f"{path}:{number}", json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise ToolkitError(f"{path}:{number}: not JSON: {error}") from error
        return found
    if isinstance(value, list):
        return [(f"{path}: conversation {number}", item) for number, item in enumerate(value, start=1)]
    return [(str(path), value)]


def _script(value: Any, place: str, number: int) -> Script:
    if not isinstance(value, dict):
        raise ToolkitError(f"{place}: must be an object, not {type(value).__name__}")
    messages = value.get("conversation_pair", value.get("messages"))
    if not isinstance(messages, list) or not messages:
        raise ToolkitError(f'{place}: must have a list "conversation_pair" or "messages"')
    system = value.get("system_prompt") or ""
    if not isinstance(system, str):
        raise ToolkitError(f'{place}: "system_prompt" must be a string')
    turns: list[Turn] = []
    for index, message in enumerate(messages, start=1):
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if role not in ("system", "user", "assistant"):
            raise ToolkitError(f"{place}: message {index} has role {role!r}; valid: system, user, assistant")
        if not isinstance(content, str):
            raise ToolkitError(f'{place}: message {index}: "content" must be a string')
        if role == "system" and (index > 1 or system):
            raise ToolkitError(
                f"{place}: message {index}: a second system prompt, or one that is not the first message"
            )
        if role == "system":
            system = content
        elif role == "user":
            turns.append(Turn(content, ""))
        elif turns:
            turns[-1] = Turn(turns[-1].user, content)
    try:
        "".join((system, *(text for turn in turns for text in (turn.user, turn.expected)))).encode()
    except UnicodeEncodeError as error:
        raise ToolkitError(f"{place}: half of a surrogate pair stands for no character") from error
    if not turns:
        raise ToolkitError(f"{place}: no message has role user, so there is nothing to ask")
    return Script(str(value.get("conversation_id", value.get("id", f"script-{number}"))), system, tuple(turns))
