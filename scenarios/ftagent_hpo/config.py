"""hpo.yaml, and `-o` on top of it. Every complaint names the line, or the words of the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ftagent.core.errors import RequestError
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.yaml_files import Layer, parse_layer, parse_value
from ftagent_hpo.parameters import ParameterSpec
from ftagent_hpo.settings import AgentSettings, setting_names

FILE = "hpo.yaml"
PACKAGED = "hpo.yaml of ftagent"
"""The name under which a run keeps the packaged file, where it was not given one."""
SECTIONS = ("DEFAULT_CONFIG", "TUNABLE_KEYS", "AGENT_SETTINGS")


@dataclass(frozen=True)
class HpoConfig:
    """What the file and the command line say. Values of DEFAULT_CONFIG are checked by the task that has the keys."""

    layer: Layer
    settings: AgentSettings
    overrides: Mapping[str, str] = field(default_factory=dict)
    """`-o` keys as typed that are no agent setting, with their texts."""

    @property
    def default_config(self) -> Mapping[str, Any]:
        """As the file has it, before `-o`."""
        return _section(self.layer, "DEFAULT_CONFIG")

    def overrides_for(self, names: Collection[str]) -> dict[str, str]:
        """Name → text of `-o`, keys in any case. Raises RequestError for a key that is none of `names`."""
        by_lower = {name.lower(): name for name in names}
        found = {}
        for key, text in self.overrides.items():
            name = by_lower.get(key.lower())
            if name is None:
                raise RequestError(f"-o {key}: {unknown(key, [*names, *setting_names(), 'config'])}")
            found[name] = text
        return found

    def place(self, name: str, section: str = "DEFAULT_CONFIG") -> str:
        """Where the value of a key was given: `hpo.yaml:12: NAME`, or `-o NAME=TEXT`."""
        for key, text in self.overrides.items():
            if key.lower() == name.lower() and section == "DEFAULT_CONFIG":
                return f"-o {key}={text}"
        return f"{self.layer.place(section, name)}: {name}"

    def specs(self, known: Mapping[str, ParameterSpec]) -> dict[str, ParameterSpec]:
        """TUNABLE_KEYS: a mapping of names to types and ranges, or a list of names with the ranges of `known`.

        A key without a value has that of `known` too. Raises RequestError.
        """
        value = self.layer.values.get("TUNABLE_KEYS")
        if isinstance(value, list):
            value = dict.fromkeys(map(str, value))
        if not isinstance(value, Mapping):
            raise RequestError(f"{self.layer.place('TUNABLE_KEYS')}: TUNABLE_KEYS must be a list of keys or a mapping")
        found = {}
        for name, written in value.items():
            where = f"{self.layer.place('TUNABLE_KEYS', name)}: TUNABLE_KEYS.{name}"
            if written is None:
                if name not in known:
                    raise RequestError(f"{where}: needs a type and a range or choices; {unknown(name, known)}")
                found[str(name)] = known[str(name)]
                continue
            try:
                found[str(name)] = ParameterSpec.model_validate(written)
            except ValidationError as error:
                raise RequestError(f"{where}: {in_words(error)}") from error
        return found


def unknown(key: str, valid: Collection[str]) -> str:
    """What to say of a name that is none of `valid`."""
    by_lower = {name.lower(): name for name in valid}
    near = get_close_matches(key.lower(), by_lower, n=1)
    hint = f"did you mean {by_lower[near[0]]}? " if near else ""
    return f"no such key; {hint}valid: {', '.join(sorted(valid))}"


def in_words(error: ValidationError, depth: int | None = None) -> str:
    """The first complaint, on one line; `depth`: how many parts of its place are keys of the file, not steps inside."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"][:depth])
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = first["input"]
    shown = f" (not {given!r})" if isinstance(given, str | int | float | bool) and first["type"] != "missing" else ""
    return f"{where}: {message}{shown}" if where else f"{message}{shown}"


def read_config(text: str, source: str, given: Mapping[str, str]) -> HpoConfig:
    """hpo.yaml with `-o` options `given` on top. Raises RequestError."""
    try:
        layer = parse_layer(text, source)
    except ToolkitError as error:
        raise RequestError(str(error)) from error
    for key in layer.values:
        if key not in SECTIONS:
            raise RequestError(f"{layer.place(key)}: {key}: {unknown(key, SECTIONS)}")
    settings, rest = _settings(layer, {key: value for key, value in given.items() if key.lower() != "config"})
    return HpoConfig(layer, settings, rest)


def _section(layer: Layer, name: str) -> Mapping[str, Any]:
    value = layer.values.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RequestError(f"{layer.place(name)}: {name} must be a mapping of keys to values")
    return value


def _settings(layer: Layer, given: Mapping[str, str]) -> tuple[AgentSettings, dict[str, str]]:
    names = {name.lower(): name for name in setting_names()}
    values = dict(_section(layer, "AGENT_SETTINGS"))
    for key in values:
        if key not in names.values():
            raise RequestError(f"{layer.place('AGENT_SETTINGS', key)}: AGENT_SETTINGS.{key}: "
                               f"{unknown(str(key), list(names.values()))}")  # fmt: skip
    typed: dict[str, str] = {}
    rest: dict[str, str] = {}
    for key, text in given.items():
        name = names.get(key.lower())
        if name is None:
            rest[key] = text
            continue
        typed[name] = f"-o {key}={text}"
        try:
            values[name] = parse_value(text, typed[name])
        except ToolkitError as error:
            raise RequestError(str(error)) from error
    try:
        return AgentSettings.model_validate(values), rest
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        place = typed.get(name) or layer.place("AGENT_SETTINGS", name)
        raise RequestError(f"{place}: AGENT_SETTINGS.{in_words(error, 1)}") from error


def packaged_text() -> str:
    """The file that `ftagent init --scenario hpo` writes."""
    return (Path(__file__).parent / FILE).read_text(encoding="utf-8")
