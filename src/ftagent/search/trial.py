"""What a strategy is told of each trial, and the rules by which a trial is stopped early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried. `trials[0]` of a search is the default configuration."""

    params: Mapping[str, Any]
    value: float | None
    """The metric; None where it failed, was stopped early, or is still running."""
    stderr: float = 0.0
    """Of `value`; 0 is unknown."""
    curve: tuple[tuple[int, float], ...] = ()
    """(step, live metric), ascending."""
    stopped: bool = False
    """Stopped early: worse than what its curve shows was to be expected."""
    violation: float = 0.0
    """How far it exceeds the constraints, relative; 0 is feasible."""


@dataclass(frozen=True)
class Rung:
    """A trial goes on after `step` only when its live metric is at least (minimised: at most) `needs`."""

    step: int
    needs: float
