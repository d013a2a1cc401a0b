"""The models that scripts may ask for, by name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

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

    @property
    def names(self) -> tuple[str, ...]:
        """What a script may write as `model`; the pools first."""
        return tuple(dict.fromkeys(["strong", "weak", *self._members]))

    def members(self, name: str) -> tuple[ModelChoice, ...]:
        """Of a pool, in the order that they were given in; a model's own name is a pool of one. Raises KeyError."""
        return tuple(self._choices[model] for model in self._members[name])

    def turn(self, name: str, request: str, number: int) -> tuple[ModelChoice, ...]:
        """The members in the order to try them for a `request` that is asked for the `number`th time. Raises KeyError.

        Requests are spread evenly by what they say, and those that are asked again go round. Not by when they come: a
        script may ask many things at once, and a run that is repeated should ask each of the same model.
        """
        members = self.members(name)
        digest = hashlib.sha256(request.encode("utf-8", "replace")).digest()
        first = (int.from_bytes(digest[:8], "big") + number) % len(members)
        return members[first:] + members[:first]


def member(chat: ModelChoice, model: str) -> ModelChoice:
    """A model of a pool, asked with the access of the chat model but none of its parameters: they are another model's,
    and further ones may hold what only its own provider may know."""
    if model == chat.model:
        return chat
    return replace(
        chat, model=model, temperature=None, frequency_penalty=None, presence_penalty=None, reasoning_effort=None,
        max_tokens=None, extra={},
    )  # fmt: skip
