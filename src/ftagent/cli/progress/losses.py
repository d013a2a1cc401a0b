"""Training points and counts of items in what a command prints."""

from __future__ import annotations

import json
import math
from typing import Any

_LONGEST = 10_000


def training_point(line: str) -> tuple[int, float] | None:
    """(step, loss) where `line` is a JSON object with both, else None. The line is untrusted."""
    row = _object(line, '"loss"')
    step, loss = row.get("step"), row.get("loss")
    if isinstance(step, int) and isinstance(loss, int | float) and math.isfinite(loss):
        return step, float(loss)
    return None


def items_done(line: str) -> tuple[int, int] | None:
    """(done, total) where `line` is a JSON object with `predicted` and `of`, else None. The line is untrusted."""
    row = _object(line, '"predicted"')
    done, total = row.get("predicted"), row.get("of")
    if isinstance(done, int) and isinstance(total, int) and 0 <= done <= total and total > 0:
        return done, total
    return None


def _object(line: str, key: str) -> dict[str, Any]:
    if not line.startswith("{") or len(line) > _LONGEST or key not in line:
        return {}
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}
