"""The one place where a scenario, an agent and an environment are put together into a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ftagent.core.events import Limits, Place

if TYPE_CHECKING:
    from ftagent.core.observer import Observer
    from ftagent.settings import Settings

Keep = Literal["best", "all", "none"]


@dataclass(frozen=True)
class RunRequest:
    """What `ftagent run` was asked for, after settings are merged in. Becomes `request` of run.json."""

    scenario: str = "llm"
    base_model: str | None = None
    benchmark: str | None = None
    benchmark_description: str | None = None
    datasets: tuple[str, ...] = ()
    competition: str | None = None
    script: str | None = None
    space: str | None = None
    agent: str = "auto"
    env: str = "auto"
    limits: Limits = field(default_factory=Limits)
    limit: int | None = None
    parallel: int = 1
    gpus: tuple[str, ...] = ()
    seed: int = 0
    log_dir: str = "log"
    name: str | None = None
    keep: Keep = "best"
    options: dict[str, str] = field(default_factory=dict)
    """Scenario options as typed, `-o key=value`; the scenario's own model validates them."""
    yes_run_unsandboxed: bool = False


@dataclass(frozen=True)
class Result:
    """How a session ended."""

    run: Path
    exit_code: int
    document: dict[str, Any]
    """The `finished` document of CLI.md."""


@dataclass(frozen=True)
class Plan:
    """What `run --dry-run` prints: what would happen and what it would need."""

    document: dict[str, Any]
    lines: tuple[str, ...]


def start(request: RunRequest, settings: Settings, observer: Observer) -> Result:
    """Create a run and go on until a limit. Raises RequestError before anything is created."""
    raise NotImplementedError


def plan(request: RunRequest, settings: Settings) -> Plan:
    """What `start` would do. Changes nothing. Raises RequestError as `start` would."""
    raise NotImplementedError


def resume(
    run: Path,
    settings: Settings,
    observer: Observer,
    *,
    place: Place | None = None,
    fork: bool = False,
    limits: Limits | None = None,
) -> Result:
    """Go on with a run, or from `place` of it; `fork` copies into a new folder first. None limits: as recorded.

    In `limits`, None fields leave what is recorded.
    """
    raise NotImplementedError
