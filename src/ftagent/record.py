"""run.json: what was asked and where, so that a run can be resumed, forked and told apart later."""

from __future__ import annotations

import contextlib
import platform
import shutil
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ftagent.core.errors import RequestError
from ftagent.core.events import Place
from ftagent.core.run_folder import RunFolder, create
from ftagent.request import RunRequest

if TYPE_CHECKING:
    from ftagent.core.types import Brief
    from ftagent.parts import Parts
    from ftagent.settings import Settings

_PACKAGES = ("ftagent", "torch", "transformers", "peft", "datasets", "optuna", "reasoning-gym", "math-verify")
_RESULTS = {"best", "best_overall_model", "controls", "docs"}


def describe(name: str, request: RunRequest, settings: Settings, built: Parts) -> dict[str, Any]:
    """The document of run.json; secrets are redacted."""
    changed = {value.variable.name: value.shown for value in settings.values if not value.is_default}
    return {
        "schema_version": 1,
        "name": name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "request": asdict(request),
        "scenario_options": built.scenario_options,
        "settings": changed,
        "environment": {"name": built.environment.name, "sealed": built.environment.sealed},
        "agent": built.agent.name,
        "hardware": asdict(built.hardware),
        "versions": {"python": platform.python_version(), **_versions()},
        "seed": request.seed,
        "models": built.language.record if built.language else None,
        "lessons": list(built.lessons),
        **_tuning(built.scenario.brief()),
    }


def _tuning(brief: Brief) -> dict[str, Any]:
    """What reports tell of a search, so that none has to make the scenario again."""
    if brief.plan is None:
        return {}
    return {"tuning": {"plan": brief.plan, "space": brief.space, "baseline_params": dict(brief.baseline_params)}}


def request_of(folder: RunFolder) -> RunRequest:
    """What a recorded run was asked for. Raises RequestError."""
    try:
        return msgspec.convert(folder.read_record()["request"], RunRequest, strict=False)
    except (KeyError, msgspec.ValidationError) as error:
        raise RequestError(f"{folder.record}: its request does not read ({error})") from error


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def fork(origin: RunFolder, place: Place | None) -> RunFolder:
    """A copy of a run that names its origin; the original is not touched."""
    with origin.lock():
        folder = create(origin.path.parent, f"{origin.name}-fork"[:100])
        left_out = shutil.ignore_patterns("run.lock", "report.*", "result.json", "figures", ".best.*", ".tmp-*")

        def ignore(path: str, names: list[str]) -> set[str]:
            return left_out(path, names) | (_RESULTS & set(names) if Path(path) == origin.path else set())

        shutil.copytree(origin.path, folder.path, ignore=ignore, symlinks=True, dirs_exist_ok=True)
    record = origin.read_record() | {"name": folder.name, "origin": f"{origin.path} {place or 'end'}"}
    folder.write_json(folder.record, record)
    return folder
