"""YAML mappings that know the line of each key, in layers of which the later ones win."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftagent.toolkit.errors import ToolkitError

KeyPath = tuple[str, ...]
_DEEPEST = 4
"""Levels of nested keys whose lines are kept; no config of ours is deeper."""


@dataclass(frozen=True)
class Layer:
    """Values and where each was written. `source` is a file, or the words of a command line."""

    source: str
    values: Mapping[str, Any]
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def place(self, *path: Any) -> str:
        """`file:line` of a key, of the nearest key around it where it has no line, else the source alone."""
        names = tuple(str(part) for part in path)
        while names and names not in self.lines:
            names = names[:-1]
        return f"{self.source}:{self.lines[names]}" if names else self.source


def read_layer(path: Path, source: str = "") -> Layer:
    """The mapping of a file. Raises ToolkitError, one line with file, line and column: not readable, not YAML,
    a key twice, not a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ToolkitError(f"{source or path}: cannot be read: {error}") from error
    except OSError as error:
        raise ToolkitError(f"{source or path}: cannot be read: {error.strerror}") from error
    return parse_layer(text, source or str(path))


def parse_layer(text: str, source: str) -> Layer:
    """`read_layer` of a text."""
    import yaml

    loader = yaml.SafeLoader(text)
    lines: dict[KeyPath, int] = {}
    try:
        node = loader.get_single_node()
        _note_lines(node, (), source, lines)
        values = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ToolkitError(f"{place}: not YAML: {_sentence(error)}") from error
    except yaml.YAMLError as error:
        raise ToolkitError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
    except (ValueError, RecursionError) as error:  # 2026-99-99 is no date
        raise ToolkitError(f"{source}: not YAML: {error}") from error
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise ToolkitError(f"{source}: must be a mapping of keys to values, not {_kind(values)}")
    return Layer(source, {str(key): value for key, value in values.items()}, lines)


def parse_value(text: str, source: str) -> Any:
    """One YAML value, as after `-o key=`. Raises ToolkitError."""
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ToolkitError(f"{source}: not a YAML value") from error


def _note_lines(node: Any, path: KeyPath, source: str, lines: dict[KeyPath, int]) -> None:
    """Fill `lines`. Raises ToolkitError for a key that stands twice in its mapping: YAML would take the last."""
    import yaml

    if not isinstance(node, yaml.MappingNode) or len(path) == _DEEPEST:
        return
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        inner = (*path, key.value)
        line = key.start_mark.line + 1
        if inner in lines:
            raise ToolkitError(f"{source}:{line}: {'.'.join(inner)}: stands twice, first in line {lines[inner]}")
        lines[inner] = line
        _note_lines(value, inner, source, lines)


def _sentence(error: Any) -> str:
    parts = [part for part in (error.context, error.problem) if part]
    return " ".join(", ".join(parts).split())


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
