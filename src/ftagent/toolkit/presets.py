"""Where the keys of a training get their values: default.yaml < preset < config.yaml < `-o key=value`.

A preset is `train_args/<model_name>.yaml`, of a folder `train_args` beside config.yaml or else of this package.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.yaml_files import Layer, parse_value, read_layer

Method = Literal["full", "lora", "dora", "qlora"]
ObjectiveName = Literal["sft", "dpo", "grpo"]

FOLDER = "train_args"
PACKAGED = Path(__file__).parent / FOLDER
DEFAULT = "default"
EXCLUSIVE = (("epochs", "max_tokens"), ("validation_path", "validation_split", "validation_share"))
"""Of each group one is given: where a layer gives one, what lower layers gave is off."""
_CONDITIONS = (*get_args(Method), *get_args(ObjectiveName))


@dataclass(frozen=True)
class Stack:
    """The values of all layers together. `main` is the layer that a missing key belongs to."""

    values: dict[str, Any]
    layers: Sequence[Layer]
    main: Layer

    def place(self, *path: Any) -> str:
        """Where the value at `path` came from, as `file:line` or the words of the command line."""
        for layer in reversed(self.layers):
            value: Any = layer.values
            for part in path:
                value = value.get(str(part)) if isinstance(value, Mapping) and str(part) in value else _ABSENT
                if value is _ABSENT:
                    break
            if path and value is not _ABSENT:
                return layer.place(*path)
        return self.place(*path[:-1]) if len(path) > 1 else self.main.source


_ABSENT = object()


def stack(main: Layer, overrides: Sequence[str] = (), folder: Path | None = None) -> Stack:
    """`main` over its preset and the defaults, under `overrides` (`key=value`).

    `folder`: where a folder of the user's own presets may be. Raises ToolkitError: an unknown preset or a wrong `when`.
    """
    on_top = [_override(word) for word in overrides]
    below = [_default_layer()]
    name = _last("model_name", [main, *on_top])
    if name is not None and name != "":
        below.append(find_preset(name, folder, Stack({}, [main, *on_top], main).place("model_name")))
    layers = [*below, main, *on_top]
    conditions = {str(_last(key, layers)) for key in ("objective", "method")}
    flat = [_apply_conditions(layer, conditions) for layer in below]
    return Stack(_merge([*flat, main, *on_top]), [*flat, main, *on_top], main)


def complete(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` over the defaults of their method and objective; without presets."""
    return stack(Layer("", {key: value for key, value in values.items() if key != "model_name"})).values | dict(values)


def default_values() -> dict[str, Any]:
    """What default.yaml says, `when` included."""
    return dict(_default_layer().values)


def preset_names(folder: Path | None = None) -> list[str]:
    """Of the presets that can be named, those of the user's `folder` included."""
    folders = [PACKAGED, *([folder / FOLDER] if folder else [])]
    return sorted({path.stem for place in folders for path in place.glob("*.yaml")} - {DEFAULT})


def find_preset(name: Any, folder: Path | None, place: str) -> Layer:
    """The preset `name`; the user's own before ours. Raises ToolkitError with `place` and the nearest name."""
    names = preset_names(folder)
    if not isinstance(name, str) or name not in names:
        near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise ToolkitError(f"{place}: model_name: no preset {name!r}; {hint}")
    own = folder / FOLDER / f"{name}.yaml" if folder else None
    if own is not None and own.is_file():
        return _not_nested(read_layer(own))
    return read_layer(PACKAGED / f"{name}.yaml", f"preset {name}.yaml")


def unknown_key(key: str, valid: Collection[str]) -> str:
    """What to say of `key`, with the nearest of `valid`."""
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    return f"unknown key; did you mean {near[0]!r}?" if near else f"unknown key; valid keys: {', '.join(sorted(valid))}"


def _keys() -> set[str]:
    return {*_default_layer().values, "model_path", "dataset_path", "save_model_path"} - {"when"}


@cache
def _default_layer() -> Layer:
    return read_layer(PACKAGED / f"{DEFAULT}.yaml", f"{FOLDER}/{DEFAULT}.yaml")


def _not_nested(layer: Layer) -> Layer:
    if "model_name" in layer.values:
        raise ToolkitError(f"{layer.place('model_name')}: model_name: a preset cannot build on another")
    return layer


def _override(word: str) -> Layer:
    """`key=value`, or `then.key=value`."""
    source = f"-o {word}"
    key, equals, text = word.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ToolkitError(f"{source}: write -o key=value")
    value = parse_value(text, source)
    section, dot, inner = key.partition(".")
    return Layer(source, {section: {inner: value}} if dot else {key: value})


def _last(key: str, layers: Sequence[Layer]) -> Any:
    return next((layer.values[key] for layer in reversed(layers) if key in layer.values), None)


def _apply_conditions(layer: Layer, conditions: set[str]) -> Layer:
    """`layer` with the sections of its `when` that hold as plain keys."""
    sections = layer.values.get("when", {})
    values = {key: value for key, value in layer.values.items() if key != "when"}
    lines = dict(layer.lines)
    if not isinstance(sections, Mapping):
        raise ToolkitError(f"{layer.place('when')}: when: must be a mapping such as `full: {{learning_rate: 1e-5}}`")
    for words, section in sections.items():
        place = layer.place("when", words)
        wanted = str(words).split()
        wrong = [word for word in wanted if word not in _CONDITIONS]
        if wrong or not wanted:
            raise ToolkitError(f"{place}: when: {words!r}: valid words are {', '.join(_CONDITIONS)}")
        if not isinstance(section, Mapping):
            raise ToolkitError(f"{place}: when: {words}: must be a mapping of keys to values")
        for key, value in section.items():
            where = f"{layer.place('when', words, key)}: when: {words}: {key}"
            if key in ("method", "objective", "model_name"):
                raise ToolkitError(f"{where}: cannot depend on method and objective")
            if str(key) not in _keys():
                raise ToolkitError(f"{where}: {unknown_key(str(key), _keys())}")
            if set(wanted) <= conditions:
                values[str(key)] = value
                lines[(str(key),)] = layer.lines[("when", str(words), str(key))]
    return Layer(layer.source, values, lines)


def _merge(layers: Sequence[Layer]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        for group in EXCLUSIVE:
            if any(layer.values.get(key) for key in group):
                merged.update({key: layers[0].values.get(key) for key in group})
        for key, value in layer.values.items():
            nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = {**merged[key], **value} if nested else value
    return merged
