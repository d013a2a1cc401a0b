"""Items that say the same as others, in one file or in another one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from ftagent.toolkit.data.formats import Item
from ftagent.toolkit.data.messages import Fault
from ftagent.toolkit.data.types import Conversation, Message, Preference

# At the edges of words only: 3.5 is not 35, and 1-1 is not 1+1.
_PUNCTUATION = re.compile(r"[.,;:!?\"'“”‘’`…。，；：！？]+(?=\s|$)|(?<!\S)[\"'“”‘’`¿¡]+")
_JOINT = "\n\0\n"
"""Between the texts of an item; a line break ends a word, and normalising leaves the rest."""
_ALIKE = "but for case, spacing and punctuation"


def normalised(text: str) -> str:
    """Without what a copy often differs in: case, spacing, punctuation at the edges of words, Unicode variants."""
    return " ".join(_PUNCTUATION.sub("", unicodedata.normalize("NFKC", text).casefold()).split())


@dataclass(frozen=True)
class Keys:
    """Digests of an item: of its texts, of its texts normalised, and of what is asked in it, normalised."""

    exact: bytes
    alike: bytes
    asked: bytes


def keys_of(item: Item) -> Keys:
    """The digests by which an item is compared."""
    text, asked = _JOINT.join(_parts(item)), _JOINT.join(_question(item))
    return Keys(_digest(text), _digest(normalised(text)), _digest(normalised(asked)))


class Repeats:
    """Remembers items by their digests, and tells of a new one where it was before."""

    def __init__(self) -> None:
        self._exact: dict[bytes, str] = {}
        self._alike: dict[bytes, str] = {}
        self._asked: dict[bytes, str] = {}

    def add(self, keys: Keys, place: str) -> None:
        """Remember an item; the first place of each stays."""
        self._exact.setdefault(keys.exact, place)
        self._alike.setdefault(keys.alike, place)
        self._asked.setdefault(keys.asked, place)

    def earlier(self, keys: Keys) -> str:
        """Where an item with the same messages is, and how alike it is; empty where there is none."""
        if place := self._exact.get(keys.exact):
            return f"same as {place}"
        place = self._alike.get(keys.alike)
        return f"same as {place} {_ALIKE}" if place else ""

    def overlap(self, keys: Keys) -> list[Fault]:
        """The fault of an item that is here whole, or whose question is."""
        if same := self.earlier(keys):
            return [("overlap", same)]
        asked = self._asked.get(keys.asked)
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


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()
