"""What training data and questions are, whatever file they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ROLES = ("system", "user", "assistant", "tool")

Message = dict[str, str]
"""{"role", "content"}; an assistant's may have "thinking", its reasoning before the content."""


@dataclass(frozen=True)
class Conversation:
    """One training row. `line` counts from 1 in its file (rows of a JSON list or a table count from 1, too).

    `extra` holds the keys of the row that say nothing about the messages; they survive conversion.
    """

    messages: tuple[Message, ...]
    line: int
    id: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preference:
    """Two replies to one prompt, the first better than the second. `chosen` and `rejected` end with the assistant."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    line: int
    id: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """A prompt whose replies a verifier can judge. `extra` is what the verifier may need beside `answer`."""

    prompt: tuple[Message, ...]
    answer: str
    line: int
    id: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """One row to predict. `id` is unique in its file."""

    id: str
    messages: tuple[Message, ...]
    line: int
