"""What the checks of the conformance suite work with."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftagent.core.protocols import Environment, OnLine
from ftagent.core.types import Execution, Stage


class CheckFailed(Exception):
    """The environment does not have the property; the text says what was seen."""


class NotApplicable(Exception):
    """The property cannot be shown here; the text says why."""


@dataclass
class Bench:
    """What a check works with: an environment, and a folder of its own with a workspace in it."""

    environment: Environment
    folder: Path
    lines: list[str] = field(default_factory=list)

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def log(self) -> Path:
        return self.folder / "stage.log"

    async def python(self, script: str, *, on_line: OnLine | None = None, **stage: Any) -> Execution:
        """Run a Python script as a stage; further keywords are the stage's."""
        if "time_limit" not in stage:
            stage["time_limit"] = 60.0
        made = Stage("check", "debug", ("python", "-c", script), **stage)
        return await self.environment.execute(made, self.workspace, on_line or self.lines.append, self.log)

    def sealed_only(self) -> None:
        """Raise NotApplicable where nothing is sealed."""
        if not self.environment.sealed:
            raise NotApplicable("this environment is not sealed")

    def beats(self) -> int:
        with contextlib.suppress(OSError):
            return (self.workspace / "beat").stat().st_size
        return 0


def expect(condition: bool, seen: object) -> None:
    """Raise CheckFailed with what was seen unless `condition`."""
    if not condition:
        raise CheckFailed(str(seen))


@dataclass(frozen=True)
class Check:
    """`property` is what a pass shows; `rows` are lines of the reliability table."""

    name: str
    rows: tuple[int, ...]
    property: str
    run: Callable[[Bench], Awaitable[None]]
