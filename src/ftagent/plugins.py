"""Scenarios by name. Built-in ones are found exactly as a third party's: by entry point."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from ftagent.core.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from ftagent.core.protocols import Scenario
    from ftagent.request import RunRequest

SCENARIOS = "ftagent.scenarios"
OPTIONS = "ftagent.options"


def scenario_names() -> list[str]:
    """Installed scenarios, sorted."""
    return sorted({point.name for point in entry_points(group=SCENARIOS)})


def load_scenario(name: str) -> type[Scenario]:
    """The class behind a scenario's name. Raises RequestError."""
    found: type[Scenario] = _load(SCENARIOS, name)
    return found


def load_options(name: str) -> type[BaseModel]:
    """The pydantic model of a scenario's options. Raises RequestError."""
    found: type[BaseModel] = _load(OPTIONS, name)
    return found


def read_documents(request: RunRequest) -> dict[str, str]:
    """The texts that a run is made from, by path as given, where its scenario's options know how to read some.

    Raises RequestError for a file that is missing or does not read, and for one that nobody would read.
    """
    read = getattr(load_options(request.scenario), "read_documents", None)
    if read is None:
        for option in ("script", "space"):
            if getattr(request, option):
                raise RequestError(f"--{option}: scenario {request.scenario} reads none; --scenario hpo does")
        return {}
    if request.script:
        for option in ("benchmark", "base-model", "dataset"):
            if getattr(request, {"dataset": "datasets"}.get(option, option.replace("-", "_"))):
                raise RequestError(f"--{option}: a script has a data set, model and metric of its own; leave out "
                                   f"--{option} or --script")  # fmt: skip
    found: dict[str, str] = read(request.options, request.script, request.space)
    return found


def starter_files(name: str) -> dict[str, str]:
    """Files that a user of scenario `name` edits, by name in the working folder. Raises RequestError."""
    make = getattr(load_options(name), "starter_files", None)
    found: dict[str, str] = make() if make is not None else {}
    return found


def parse_options(name: str, given: Mapping[str, str]) -> BaseModel:
    """`-o` options of scenario `name` as its model; keys in any case. Raises RequestError naming valid ones."""
    from pydantic import ValidationError

    model = load_options(name)
    fields = {field.lower(): field for field in model.model_fields}
    values: dict[str, Any] = {}
    for key, value in given.items():
        field = fields.get(key.lower())
        if field is None and model.model_config.get("extra") == "allow":
            values[key] = value  # names that only the scenario itself knows; it checks them
            continue
        if field is None:
            near = get_close_matches(key.lower(), fields, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise RequestError(
                f"-o {key}: scenario {name} has no such option; {hint}valid: {', '.join(sorted(fields))}"
            )
        values[field] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "options"
        raise RequestError(f"-o {where}={given.get(where, first['input'])}: {first['msg'].lower()}") from error


def _load(group: str, name: str) -> Any:
    points: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=group)}
    if name not in points:
        near = get_close_matches(name, points, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise RequestError(f"scenario {name!r} is not installed; {hint}valid: {', '.join(sorted(points)) or 'none'}")
    try:
        return points[name].load()
    except ImportError as error:
        raise RequestError(f"scenario {name!r} cannot be loaded: {error}") from error
