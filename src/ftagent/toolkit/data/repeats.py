"""Items that say the same as others, in one file or in another one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b

from ftagent.toolkit.data.formats import Item
from ftagent.toolkit.data.messages import Fault
from ftagent.toolkit.data.types import Conversation, Message, Preference

# At the edges of words only: 3.5 is not 35, and 1-1 is not 1+1.
_PUNCTUATION = re.compile(r"[.,;:!?\"'“”‘’`…。，；：！？]+(?=\s|$)|(?<!\S)[\"'“”‘’`¿¡]+")
_ALIKE = "but for case, spacing and punctuation"


def normalised(text: str) -> str:
    """Without what a copy often differs in: case, spacing, punctuation at the edges of words, Unicode variants."""
    return " ".join(_PUNCTUATION.sub("", unicodedata.normalize("NFKC", text).casefold()).split())


class Repeats:
    """Remembers digests of items, and tells of a new one where it was before."""

    def __init__(self) -> None:
        self._exact: dict[bytes, str] = {}
        self._alike: dict[bytes, str] = {}
        self._asked: dict[bytes, str] = {}

    def add(self, item: Item, place: str) -> None:
        """Remember an item; the first place of each stays."""
        parts = _parts(item)
        self._exact.setdefault(_digest(parts), place)
        self._alike.setdefault(_digest([normalised(part) for part in parts]), place)
        self._asked.setdefault(_digest([normalised(part) for part in _question(item)]), place)

    def earlier(self, item: Item) -> str:
        """Where an item with the same messages is, and how alike it is; empty where there is none."""
        parts = _parts(item)
        if place := self._exact.get(_digest(parts)):
            return f"same as {place}"
        place = self._alike.get(_digest([normalised(part) for part in parts]))
        return f"same as {place} {_ALIKE}" if place else ""

    def overlap(self, item: Item) -> list[Fault]:
        """The fault of an item that is here whole, or whose question is."""
        if same := self.earlier(item):
            return [("overlap", same)]
        asked = self._asked.get(_digest([normalised(part) for part in _question(item)]))
        return [("overlap", f"asks the same as {asked}")] if asked else []


def _parts(item: Item) -> list[str]:
    if isinstance(item, Conversation):
        return _texts(item.messages)
    if isinstance(item, Preference):
        return [*_texts(item.prompt), "chosen", *_texts(item.chosen), "rejected", *_texts(item.rejected)]
    return [*_texts(item.prompt), "answer", item.answer]


def _question(item: Item) -> list[str]:
    """What users say before the first reply."""
    messages = item.messages if isinstance(item, Conversation) else item.prompt
    end = next((place for place, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    return [message["content"] for message in messages[:end] if message["role"] == "user"]


def _texts(messages: Sequence[Message]) -> list[str]:
    return [text for message in messages for text in (message["role"], message.get("thinking", ""), message["content"])]


def _digest(parts: Sequence[str]) -> bytes:
    return blake2b("\0".join(parts).encode(), digest_size=16).digest()
