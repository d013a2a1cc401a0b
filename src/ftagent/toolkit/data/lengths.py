"""How long items are, for a model or in characters, and how lengths are summed up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftagent.toolkit.data.formats import Item
from ftagent.toolkit.data.types import Conversation, Message, Preference, Problem
from ftagent.toolkit.errors import ToolkitError

_BINS = 12
_WIDE = 64
"""From this ratio of most to least on, bins double in width."""


@dataclass(frozen=True)
class Summary:
    """Five numbers of many. Percentiles are the nearest of the values."""

    least: int
    median: int
    p90: int
    most: int
    total: int


@dataclass(frozen=True)
class Bin:
    """How many values are in `start` … `end`, both included."""

    start: int
    end: int
    count: int


class Characters:
    """Lengths in characters, where no model is given."""

    unit = "characters"
    limit: int | None = None

    def __call__(self, item: Item) -> tuple[int, int]:
        """(length, how much of it is learnt) of an item; a pair's is that of its longer reply."""
        return max(
            (_characters(conversation.messages), _characters(conversation.messages, "assistant"))
            for conversation in conversations_of(item)
        )


class Tokens:
    """Lengths in a model's tokens under its chat template, as training and predicting will meet them."""

    unit = "tokens"

    def __init__(self, folder: Path, map_function: str = "auto", limit: int | None = None) -> None:
        """`limit`: most tokens, the model's own where None. Raises ToolkitError where there is no such tokenizer."""
        from transformers import AutoConfig, AutoTokenizer
        from transformers.utils import logging

        from ftagent.toolkit.mapping import Mapper, Mapping, adopt_template

        # Its warning about rows that are too long is what the check tells with their lines.
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
        except (OSError, ValueError, KeyError) as error:
            raise ToolkitError(f"{folder}: no tokenizer that can be loaded: {str(error).splitlines()[0]}") from error
        mapping = Mapping(map_function)
        adopt_template(tokenizer, mapping)
        self._mapper = Mapper(tokenizer, mapping, {tokenizer.eos_token_id})
        most = getattr(config, "max_position_embeddings", None)
        self.limit: int | None = limit if limit is not None else most

    def __call__(self, item: Item) -> tuple[int, int]:
        """(tokens, tokens that are learnt) of an item. Raises ToolkitError where the template refuses it."""
        if isinstance(item, Problem):
            return self._prompt(item), 0
        return max(self._conversation(conversation) for conversation in conversations_of(item))

    def _conversation(self, conversation: Conversation) -> tuple[int, int]:
        from ftagent.toolkit.tokens import IGNORED

        rows = self._mapper.conversation(conversation, 1 << 40, "")
        return max(len(row.ids) for row in rows), sum(label != IGNORED for row in rows for label in row.labels)

    def _prompt(self, item: Problem) -> int:
        return len(self._mapper.prompt(item.prompt, f":{item.line}"))


def conversations_of(item: Item) -> list[Conversation]:
    """The conversations that an item stands for: one, or one for each of two replies."""
    if isinstance(item, Conversation):
        return [item]
    if isinstance(item, Preference):
        return [Conversation((*item.prompt, *reply), item.line) for reply in (item.chosen, item.rejected)]
    return [Conversation(item.prompt, item.line)]


def _characters(messages: Sequence[Message], role: str | None = None) -> int:
    return sum(
        len(message["content"]) + len(message.get("thinking", ""))
        for message in messages
        if role in (None, message["role"])
    )


def summarise(values: Iterable[int]) -> Summary | None:
    """None for no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    median, p90 = (ordered[max(0, -(-len(ordered) * percent // 100) - 1)] for percent in (50, 90))
    return Summary(ordered[0], median, p90, ordered[-1], sum(ordered))


def histogram(values: Sequence[int]) -> list[Bin]:
    """At most a dozen bins over all values, with round edges; they double in width where values differ widely."""
    if not values:
        return []
    low, high = min(values), max(values)
    edges = _doubling(low, high) if high > _WIDE * max(low, 1) else _even(low, high)
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[next(place for place in range(len(counts)) if value < edges[place + 1])] += 1
    return [Bin(edges[place], edges[place + 1] - 1, count) for place, count in enumerate(counts)]


def _even(low: int, high: int) -> list[int]:
    width = next(
        step * 10**power
        for power in range(30)
        for step in (1, 2, 5)
        if high // (step * 10**power) - low // (step * 10**power) < _BINS
    )
    first = low // width
    return [number * width for number in range(first, high // width + 2)]


def _doubling(low: int, high: int) -> list[int]:
    last = max(high, 1).bit_length()
    first = max(low.bit_length() - 1, last - _BINS + 1, 0)
    start = 0 if low < 2**first or low == 0 else 2**first
    return [start, *(2**power for power in range(first + 1, last + 1))]
