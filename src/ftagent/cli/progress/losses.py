"""Training points in what a command prints."""

from __future__ import annotations

import json
import math


def training_point(line: str) -> tuple[int, float] | None:
    """(step, loss) where `line` is a JSON object with both, else None. The line is untrusted."""
    if not line.startswith("{") or len(line) > 10_000 or '"loss"' not in line:
        return None
    try:
        row = json.loads(line)
        step, loss = row["step"], row["loss"]
    except (ValueError, KeyError, RecursionError):
        return None
    if isinstance(step, int) and isinstance(loss, int | float) and math.isfinite(loss):
        return step, float(loss)
    return None
