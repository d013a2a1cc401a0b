"""How the engine is driven, and who may end it early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ftagent.core.policy import PolicyOptions
from ftagent.core.state import State


class Gate(Protocol):
    """Somebody who is asked between loops."""

    async def go_on(self, state: State, loop: int) -> bool:
        """`loop` has its feedback: is another to be submitted? May take as long as it takes; can be cancelled."""
        ...


@dataclass(frozen=True)
class EngineOptions:
    """How a run is driven. `step_limits`: how many of a step run at once; unnamed steps: as many as loops."""

    parallel: int = 1
    repairs: int = 10
    keep: str = "best"
    step_limits: Mapping[str, int] = field(default_factory=dict)
    policy: PolicyOptions = field(default_factory=PolicyOptions)
    gate: Gate | None = None
    """None: nobody is asked."""
    control: bool = False
    """A control run, to compare with: it measures nothing again, leaves the sealed test alone and keeps no model."""
