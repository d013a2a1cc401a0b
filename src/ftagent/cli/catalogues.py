"""What can be named on the command line: scenarios, benchmarks, base models."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

SCENARIOS = "ftagent.scenarios"
OPTIONS = "ftagent.options"


@dataclass(frozen=True)
class ScenarioEntry:
    """An installed scenario. `problem` says why it does not load; empty where that was not tried or went well."""

    name: str
    target: str
    package: str
    version: str
    options: tuple[dict[str, Any], ...] = ()
    problem: str = ""


def scenario_names() -> list[str]:
    """Names of the installed scenarios. Imports none of them."""
    return sorted({point.name for point in entry_points(group=SCENARIOS)})


def scenarios(load: bool = False) -> list[ScenarioEntry]:
    """The installed scenarios with their options; with `load` each class is imported, too, to see whether it can be."""
    options = {point.name: point for point in entry_points(group=OPTIONS)}
    found = {point.name: point for point in entry_points(group=SCENARIOS)}
    return [_entry(found[name], options.get(name), load) for name in sorted(found)]


def _entry(point: EntryPoint, options: EntryPoint | None, load: bool) -> ScenarioEntry:
    fields: tuple[dict[str, Any], ...] = ()
    problem = "" if options else f"no entry point {OPTIONS!r} of this name"
    try:
        if options:
            fields = tuple(_fields(options.load()))
        if load:
            point.load()
    except Exception as error:  # noqa: BLE001  # a plug-in may fail in any way while it is imported
        problem = f"{type(error).__name__}: {error}"
    package = point.dist.name if point.dist else "?"
    version = point.dist.version if point.dist else "?"
    return ScenarioEntry(point.name, point.value, package, version, fields, problem)


def _fields(model: Any) -> list[dict[str, Any]]:
    from ftagent.report.text import clean

    fields = []
    for name, info in model.model_fields.items():
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        shown = default if isinstance(default, bool | int | float | str | None) else str(default)
        fields.append({"name": name, "default": shown, "description": clean(info.description or "")})
    return fields


def model_names() -> list[str]:
    """Aliases and hub ids of the catalogue."""
    from ftagent_llm.models import list_models

    return [name for entry in list_models() for name in (entry.alias, entry.hub) if name]


def benchmark_names() -> list[str]:
    """Names of the catalogue; a family such as `rg:` stands for all of its members."""
    from ftagent.evaluation.registry import benchmark_names as names

    return names()
