"""Rows of token ids and labels, and the tokens that end a turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

IGNORED = -100
"""The label of a token that is not learnt."""


@dataclass(frozen=True)
class Row:
    """A conversation, or the part of one that is learnt in one context.

    `labels[n]` is what the model must say in place n: in learnt turns `ids[n]`, their end included, else −100. Where a
    family ends a generated turn with another token than one in the history (harmony), the label is the former.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    cut: bool
    """True when `max_length` took labels away."""


def stop_tokens(tokenizer: Any, model: Any) -> frozenset[int]:
    """Ids that end a turn: the tokenizer's and those of the model's generation config."""
    found: set[int] = set()
    for value in (tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        found.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return frozenset(found)
