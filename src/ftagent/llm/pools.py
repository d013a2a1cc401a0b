"""The models that scripts may ask for, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from ftagent.llm.types import ModelChoice


class Pools:
    """`strong` and `weak`, each member by its own name, and the chat model. An empty pool is the chat model."""

    def __init__(self, chat: ModelChoice, strong: Sequence[ModelChoice] = (), weak: Sequence[ModelChoice] = ()) -> None:
        pools = {"strong": tuple(strong) or (chat,), "weak": tuple(weak) or (chat,)}
        self._choices = {choice.model: choice for choice in (*pools["weak"], *pools["strong"], chat)}
        own = {choice.model: (choice.model,) for choice in (*pools["strong"], *pools["weak"], chat)}
        # Twice the same model would be tried twice.
        named = {name: tuple(dict.fromkeys(choice.model for choice in pool)) for name, pool in pools.items()}
        self._members: dict[str, tuple[str, ...]] = own | named
        self._turns: dict[str, Iterator[int]] = {name: count() for name in self._members}

    @property
    def names(self) -> tuple[str, ...]:
        """What a script may write as `model`; the pools first."""
        return tuple(dict.fromkeys(["strong", "weak", *self._members]))

    def members(self, name: str) -> tuple[ModelChoice, ...]:
        """Of a pool, in the order that they were given in; a model's own name is a pool of one. Raises KeyError."""
        return tuple(self._choices[model] for model in self._members[name])

    def turn(self, name: str) -> tuple[ModelChoice, ...]:
        """The members in the order to try them: each call begins with the next one. Raises KeyError."""
        members = self.members(name)
        first = next(self._turns[name]) % len(members)
        return members[first:] + members[:first]
