"""Names of procedural benchmarks: `rg:NAME?key=value&…` as a reasoning-gym task with checked settings."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import enum
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ftagent.toolkit.errors import ToolkitError

PREFIX = "rg:"
OURS = ("seed", "size")
"""Settings that the splits decide."""


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """`rg:NAME?key=value&…` → task and settings as text. Raises ToolkitError."""
    task, _, query = name.removeprefix(PREFIX).partition("?")
    settings: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ToolkitError(f"{name}: {part!r} is not key=value")
        if key in settings:
            raise ToolkitError(f"{name}: {key} is given twice")
        settings[key] = value
    return task, settings


def task_names() -> list[str]:
    """All tasks of the installed reasoning-gym."""
    return sorted(_tasks())


def describe_task(task: str) -> dict[str, Any]:
    """Settings of a task and their defaults."""
    config = _config_class(task, PREFIX + task)
    return {field.name: field_default(field) for field in dataclasses.fields(config) if field.name not in OURS}


def field_default(field: dataclasses.Field[Any]) -> Any:
    """The default of a dataclass field; None where it has none."""
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def build_dataset(name: str, seed: int, size: int = 1) -> Any:
    """The reasoning-gym dataset of a benchmark name: `size` seeded entries, by index.

    Raises ToolkitError for an unknown task or key (with the nearest valid ones) or a value it refuses.
    """
    from reasoning_gym.factory import create_dataset  # type: ignore[import-untyped]

    task, settings = split_name(name)
    values = parse_settings(name, task, settings)
    try:
        return create_dataset(task, **values, seed=seed, size=size)
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ToolkitError(f"{name}: {why}") from error


def parse_settings(name: str, task: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Settings converted to the types of the task's own configuration. Raises ToolkitError."""
    config = _config_class(task, name)
    hints = typing.get_type_hints(config)
    known = {field.name: field for field in dataclasses.fields(config) if field.name not in OURS}
    values: dict[str, Any] = {}
    for key, text in settings.items():
        if key in OURS:
            raise ToolkitError(f"{name}: {key} is set by the splits; leave it out")
        if key not in known:
            raise ToolkitError(f"{name}: unknown key {key!r}; {_nearest(key, list(known), 'keys')}")
        try:
            values[key] = _convert(text, hints[key], field_default(known[key]))
        except (ValueError, KeyError, TypeError) as error:
            shown = getattr(hints[key], "__name__", None) or str(hints[key])
            raise ToolkitError(f"{name}: {key}={text!r} is not of type {shown}") from error
    return values


def canonical_name(name: str) -> str:
    """The same benchmark under one spelling: keys sorted."""
    task, settings = split_name(name)
    query = "&".join(f"{key}={settings[key]}" for key in sorted(settings))
    return f"{PREFIX}{task}?{query}" if query else f"{PREFIX}{task}"


def _tasks() -> Mapping[str, tuple[type, type]]:
    import reasoning_gym  # type: ignore[import-untyped]  # noqa: F401 - registers the tasks
    from reasoning_gym.factory import DATASETS

    tasks: Mapping[str, tuple[type, type]] = DATASETS
    return tasks


def _config_class(task: str, name: str) -> Any:
    tasks = _tasks()
    if task not in tasks:
        raise ToolkitError(f"{name}: unknown task {task!r}; {_nearest(task, sorted(tasks), 'tasks')}")
    return tasks[task][1]


def _nearest(wrong: str, valid: list[str], kind: str) -> str:
    near = difflib.get_close_matches(wrong, valid, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}valid {kind}: {', '.join(valid)}"


def _convert(text: str, hint: Any, default: Any) -> Any:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if text.lower() in ("none", "null"):
            return None
        return _convert(text, next(kind for kind in arguments if kind is not type(None)), default)
    if origin is typing.Literal:
        if text not in arguments:
            raise ValueError(text)
        return text
    if origin is not None or hint in (list, tuple):
        return _convert_sequence(text, arguments, default, tuple if origin is tuple or hint is tuple else list)
    return _convert_scalar(text, hint)


def _convert_scalar(text: str, hint: Any) -> Any:
    if hint is bool:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(text)
    if hint in (datetime.date, datetime.time, datetime.datetime):
        return hint.fromisoformat(text)
    if dataclasses.is_dataclass(hint):
        return typing.cast(Callable[..., Any], hint)(**json.loads(text))
    return hint(text)


def _convert_sequence(text: str, arguments: tuple[Any, ...], default: Any, kind: Callable[[Any], Any]) -> Any:
    """`a,b,c` or a JSON list. Elements take the declared type, or that of the default's elements."""
    element = next((argument for argument in arguments if argument is not Ellipsis), None)
    if element is None:
        element = type(default[0]) if default else str
    if not text.startswith("["):
        return kind([_convert(part.strip(), element, None) for part in text.split(",") if part.strip()])
    parts = json.loads(text)
    if dataclasses.is_dataclass(element):
        build = typing.cast(Callable[..., Any], element)
        return kind([build(**{"weight": 1.0, "config": {}, **part}) for part in parts])
    if typing.get_origin(element) is tuple:
        return kind([tuple(part) for part in parts])
    return kind([_convert(str(part), element, None) for part in parts])
