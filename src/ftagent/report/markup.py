"""Untrusted text in markdown: nothing that an agent or a command wrote may become markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ftagent.report.text import clean

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&])")


def plain(text: str) -> str:
    """One line of text that shows as it was written."""
    escaped = _SPECIAL.sub(r"\\\1", clean(text))
    # Only at the start of a line do these make a heading, a list or a rule.
    return re.sub(r"^(\d*)([-+=#.)])", r"\1\\\2", escaped) if re.match(r"[-+=#]|\d+[.)]\s", escaped) else escaped


def code(text: str) -> str:
    """Inline code."""
    line = clean(text)
    ticks = "`" * (1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}" if line else ""


def block(lines: Iterable[str], language: str = "") -> list[str]:
    """A fenced block that its content cannot leave. Control characters are dropped."""
    kept = ["".join(char for char in line if char == "\t" or char.isprintable()) for line in lines]
    longest = max((len(run) for line in kept for run in re.findall(r"`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *kept, fence, ""]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table; cells are markdown already and hold no `|` of their own."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(header)} |", f"|{'|'.join(' --- ' for _ in header)}|", *body, ""]
