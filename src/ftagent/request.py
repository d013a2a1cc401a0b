"""What `ftagent run` was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ftagent.core.events import Limits

Lang = Literal["en", "zh", "both"]
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
    samples: int | None = None
    pass_k: tuple[int, ...] = ()
    upper_data_size: int | None = None
    user_target: str | None = None
    parallel: int | None = None
    gpus: tuple[str, ...] = ()
    seed: int = 0
    log_dir: str = "log"
    name: str | None = None
    keep: Keep = "best"
    options: dict[str, str] = field(default_factory=dict)
    """Scenario options as typed, `-o key=value`; the scenario's own model validates them."""
    yes_run_unsandboxed: bool = False
    documents: dict[str, str] = field(default_factory=dict)
    """Texts that the run is made from, by path as given, read once at its start."""
    interactive: bool | None = None
    """Ask after each loop whether to go on; None: as the scenario's plan says."""
    controls: bool = False
    """Run the control strategies too, at the same number of loops."""
    report_lang: Lang = "en"
    reports_dir: str | None = None
    """Absolute; None is docs/reports of the run folder."""
    no_cache: bool = False
    """Execute every stage, also where the result of an equal one is known."""


@dataclass(frozen=True)
class EvaluateRequest:
    """What `ftagent evaluate` was asked for, after settings are merged in."""

    model: str
    adapter: Path | None = None
    split: Literal["validation", "test"] = "validation"
    limit: int | None = None
    samples: int = 1
    env: str = "auto"
