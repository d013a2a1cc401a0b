"""Parts of a prompt under a budget of tokens: each has shorter forms, and none is ever cut in its middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Count = Callable[[str], int]
"""Tokens of a text."""


@dataclass(frozen=True)
class Section:
    """A part of a prompt. `forms`: the whole first, then ever shorter ones; the last says at least what is missing."""

    name: str
    forms: tuple[str, ...]


def fit(sections: Sequence[Section], budget: int, count: Count) -> dict[str, str]:
    """Section name → the longest form that `budget` tokens admit; sections given first choose first.

    Every section has its shortest form, even where all of those are over the budget.
    """
    sizes = [[count(form) for form in section.forms] for section in sections]
    left = budget - sum(size[-1] for size in sizes)
    chosen = {}
    for section, size in zip(sections, sizes, strict=True):
        index = next((i for i, tokens in enumerate(size) if tokens - size[-1] <= left), len(size) - 1)
        left -= size[index] - size[-1]
        chosen[section.name] = section.forms[index]
    return chosen


def shrinking(text: str, what: str) -> tuple[str, ...]:
    """Forms of a text with headings (`## …`): whole, then with parts left out from its end, named in one line."""
    parts = list(_parts(text))
    forms = [text]
    for kept in range(len(parts) - 1, 0, -1):
        left_out = ", ".join(_title(part) for part in parts[kept:])
        forms.append("\n".join(parts[:kept]) + f"\n(left out for lack of room: {left_out})")
    return (*forms, f"({what}: left out for lack of room)") if text else ("",)


def _parts(text: str) -> Iterator[str]:
    """`text` in parts that begin with a heading; what is untrusted is never parted."""
    part: list[str] = []
    inside = False
    for line in text.split("\n"):
        if line.startswith("## ") and not inside and part:
            yield "\n".join(part)
            part = []
        inside = (inside or line.startswith("<untrusted ")) and not line.startswith("</untrusted ")
        part.append(line)
    yield "\n".join(part)


def _title(part: str) -> str:
    return part.split("\n", 1)[0].removeprefix("## ").strip()
