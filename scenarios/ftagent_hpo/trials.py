"""Stages under the wrapper `ftagent.toolkit.trial`, and what it left: early stops and what memory made it lower."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftagent.core.errors import StageRefused, StoppedEarly
from ftagent.core.types import Parameter, Stage
from ftagent.core.workspace import Workspace

TRIAL = "trial.json"
COMMAND = ("python", "-P", "-m", "ftagent.toolkit.trial", TRIAL)
"""-P: no file of the workspace can stand in for a module."""
STOPPING, STOPPED, ADJUSTED = "stopping.json", "stopped.json", "adjusted.json"
_MAX_BYTES = 1 << 20


def memory_bounds(parameter: Parameter) -> list[float]:
    """How far the wrapper may lower a parameter: its least value, or all that are allowed."""
    return [float(parameter.low)] if parameter.low is not None else [float(choice) for choice in parameter.choices]


def refuse_if_stopped(stage: Stage, workspace: Path) -> None:
    """Raises StoppedEarly with the rule where the wrapper ended `stage`."""
    found = read_object(workspace, folder_of(stage), STOPPED)
    if not found:
        return
    value = "no number" if found.get("value") is None else f"{_number(found.get('value'))}"
    bound = "at most" if found.get("direction") == "minimize" else "at least"
    rule = f" ({str(found['rule'])[:200]})" if found.get("rule") else ""
    raise StoppedEarly(
        f"{str(found.get('metric'))[:80]} was {value} at step {found.get('step')}, "
        f"{bound} {_number(found.get('needs'))} was needed to go on{rule}"
    )


def folder_of(stage: Stage) -> str:
    """Where the script of a stage runs, relative to the workspace."""
    return str(json.loads(stage.files[TRIAL]).get("folder", ".")) if TRIAL in stage.files else "."


def adjustments(found: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Parameter → (asked for, used) of an adjusted.json."""
    changes = {}
    for name, change in found.items():
        try:
            changes[str(name)[:80]] = (float(change["from"]), float(change["to"]))
        except (KeyError, TypeError, ValueError):
            continue  # the script may have written there too
    return changes


def notes_of(changes: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """A sentence for each parameter that memory made lower."""
    return tuple(
        f"out of memory with {name} {before:g}: measured with {name} {after:g}"
        for name, (before, after) in changes.items()
    )


def read_object(workspace: Path, folder: str, name: str) -> dict[str, Any]:
    """The object in a small JSON file of the workspace; empty where there is none."""
    try:
        found = json.loads(Workspace(workspace).read(f"{folder}/{name}", _MAX_BYTES))
    except (StageRefused, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "?"
