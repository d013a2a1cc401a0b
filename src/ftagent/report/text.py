"""Plain text for terminals: numbers, scores, times, columns. Nothing here is heavy to import."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from unicodedata import category

from ftagent.core.types import Score, Split

SPLITS: tuple[Split, ...] = ("validation", "confirm", "test")
# Colours and movements (CSI), then titles and links (OSC).
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")
BARS = "▁▂▃▄▅▆▇█"


def number(value: float) -> str:
    """A metric's value, three decimals where it is a rate, else four significant digits."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def score_text(score: Score | None, items: bool = False) -> str:
    """`0.733 (0.658 to 0.798)`; `missing` where there is none."""
    if score is None:
        return "missing"
    low, high = score.ci95
    if score.n == 1 and low == high:  # nothing is known of its noise
        return f"{number(score.value)} (n 1)"
    count = f", n {score.n}" if items else ""
    return f"{number(score.value)} ({number(low)} to {number(high)}{count})"


def clock(seconds: float) -> str:
    """`0:42`, `12:03`, `1:02:03`."""
    whole = int(max(0.0, seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def size(count: float) -> str:
    """Bytes for people, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def dollars(cost: float, unpriced_calls: int = 0, limit: float | None = None) -> str:
    """`$0.12`, `$0.12/0.50` with a limit; `unknown` where the price of a call is, with what is known of it."""
    if unpriced_calls:
        return f"unknown (at least ${_amount(cost)})" if cost else "unknown"
    return f"${_amount(cost)}" + ("" if limit is None else f"/{_amount(limit)}")


def _amount(usd: float) -> str:
    return f"{usd:.2f}" if usd == 0 or usd >= 0.1 else f"{usd:.4f}"


def quantity(count: float) -> str:
    """Tokens for people: `940`, `12.3k`, `4.56M`."""
    if count < 10_000:
        return f"{count:.0f}"
    return f"{count / 1e3:.1f}k" if count < 999_950 else f"{count / 1e6:.2f}M"


def plural(count: int, word: str) -> str:
    """`1 loop`, `3 loops`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def clean(text: str) -> str:
    """One line without control characters: what others wrote must not steer the terminal."""
    text = _ESCAPE.sub("", text)
    return " ".join("".join(" " if category(char) in {"Cc", "Cf", "Zl", "Zp"} else char for char in text).split())


def printable(text: str) -> str:
    """Lines of text without what would steer the terminal; a carriage return starts a new line."""
    lines = _ESCAPE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in lines if char in "\n\t" or char.isprintable())


def shorten(text: str, width: int) -> str:
    """`clean` text of at most `width` characters."""
    line = clean(text)
    return line if len(line) <= width else line[: max(0, width - 1)].rstrip() + "…"


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as bars, averaged into at most `width` columns."""
    finite = [value for value in values if value == value and abs(value) != float("inf")]
    if not finite or width < 1:
        return ""
    columns = min(width, len(finite))
    edges = [index * len(finite) // columns for index in range(columns + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    return "".join(BARS[round((mean - low) / span * (len(BARS) - 1)) if span else 0] for mean in means)


def columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of an aligned table."""
    table = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
