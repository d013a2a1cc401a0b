"""What a verifier says of one output."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grade:
    """Of one output. `value` is in [0, 1]; `valid`: an answer was found; `category` names an error."""

    value: float
    valid: bool = True
    category: str = ""
