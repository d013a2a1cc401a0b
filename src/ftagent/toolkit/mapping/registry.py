"""Map functions by name: the built-in ones and those that installed packages add."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any

from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.mapping.families import builtin_functions
from ftagent.toolkit.mapping.types import MapFunction

GROUP = "ftagent.map_functions"
METHODS = ("template", "thinks", "prompt", "reply")


def map_function_names() -> list[str]:
    """Valid values of `map_function`. Loads no plug-in."""
    return sorted({*builtin_functions(), *(point.name for point in entry_points(group=GROUP))})


def load_map_function(name: str) -> MapFunction:
    """Raises ToolkitError: an unknown name (with the valid ones), or a plug-in that cannot be used."""
    builtin = builtin_functions()
    if name in builtin:
        return builtin[name]
    for point in entry_points(group=GROUP):
        if point.name == name:
            return _load(name, point)
    names = map_function_names()
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ToolkitError(f"map_function: {name!r} is unknown; {hint}valid: {', '.join(names)}")


def _load(name: str, point: Any) -> MapFunction:
    try:
        function = point.load()()
    except (ImportError, AttributeError, TypeError) as error:
        raise ToolkitError(f"map_function: {name} ({point.value}) cannot be loaded: {error}") from error
    missing = [method for method in METHODS if not callable(getattr(function, method, None))]
    if missing:
        raise ToolkitError(f"map_function: {name} ({point.value}) has no method {', '.join(missing)}")
    return function  # type: ignore[no-any-return]
