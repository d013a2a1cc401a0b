"""Splits of a dataset and parts of them, written as `datasets` has them: `train`, `train[:100]`, `train[10%:20%]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ftagent.toolkit.errors import ToolkitError

_SPLIT = re.compile(r"(?P<name>\w+(?:[.-]\w+)*)(?:\[(?P<start>-?\d+%?)?:(?P<end>-?\d+%?)?\])?", re.ASCII)


@dataclass(frozen=True)
class Split:
    """A split by name, and the bounds of the part that is meant: numbers of rows, or percent."""

    name: str
    start: int | None = None
    end: int | None = None
    percent: bool = False

    @property
    def whole(self) -> bool:
        return self.start is None and self.end is None

    def bounds(self, rows: int) -> tuple[int, int]:
        """First row and the row after the last, of `rows`; percentages to the nearest row."""
        low, high = (self._row(bound, rows, default) for bound, default in ((self.start, 0), (self.end, rows)))
        return min(low, rows), min(high, rows)

    def _row(self, bound: int | None, rows: int, default: int) -> int:
        if bound is None:
            return default
        row = round(bound * rows / 100) if self.percent else bound
        return max(rows + row, 0) if row < 0 else row


def parse_split(text: str) -> Split:
    """Raises ToolkitError for what is no split."""
    found = _SPLIT.fullmatch(text.strip())
    if found is None:
        raise ToolkitError(
            f"split {text!r}: not a split; write train, train[:100], train[-50:], train[100:200] or train[10%:20%]"
        )
    given = [found["start"], found["end"]]
    percent = any(bound is not None and bound.endswith("%") for bound in given)
    if percent and not all(bound is None or bound.endswith("%") for bound in given):
        raise ToolkitError(f"split {text!r}: mixes rows and percent; use one of them")
    start, end = (None if bound is None else int(bound.rstrip("%")) for bound in given)
    if percent and any(bound is not None and abs(bound) > 100 for bound in (start, end)):
        raise ToolkitError(f"split {text!r}: percentages go from -100 to 100")
    return Split(found["name"], start, end, percent)
