"""space.yaml: what a training script is told, what it measures, and which of its parameters are tuned.

Every fault is told with the file, the line in it, the key, and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ftagent.core.errors import RequestError, StageRefused
from ftagent.core.types import Direction, Parameter
from ftagent.core.workspace import safe_parts
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.yaml_files import Layer, parse_layer
from ftagent_hpo.parameters import ParameterSpec, to_parameter

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
Model = TypeVar("Model", bound=BaseModel)
Passing = Literal["flags", "json", "environment"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _as_mapping(key: str) -> BeforeValidator:
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class LiveSpec(_Part):
    """A metric in the rows that a script writes while it trains."""

    name: str = Field(min_length=1)
    direction: Direction | None = None
    """None: that of the metric."""


class MetricSpec(_Part):
    """What is optimised, by its key in metrics.json or in the rows of metrics.jsonl."""

    name: str = Field(min_length=1)
    direction: Direction = "maximize"
    test: str = ""
    """Key that is read only when the sealed test is opened."""
    live: Annotated[LiveSpec | None, _as_mapping("name")] = None
    """What trials may be stopped by; None: the metric itself."""

    @property
    def live_metric(self) -> str:
        """As `Halving` names it."""
        if self.live is None:
            return self.name
        against = (self.live.direction or self.direction) != self.direction
        return f"-{self.live.name}" if against else self.live.name


class SeedSpec(_Part):
    """How the script gets its seed."""

    name: str = Field(min_length=1)
    """Its flag, JSON key or variable."""
    repeats: int = Field(1, ge=1, le=100)
    """Trainings of every configuration, each with its own seed."""


class ScriptParameter(ParameterSpec):
    """A parameter of the script: `ParameterSpec` with how the script is given it."""

    name: str = ""
    """Its flag, JSON key or variable where that is not made of the parameter's name."""
    memory: bool = False
    """Lowered where memory runs out."""

    @model_validator(mode="after")
    def _can_be_lowered(self) -> ScriptParameter:
        if self.memory and any(isinstance(choice, bool | str) or choice is None for choice in self.choices):
            raise ValueError("memory: true is for numbers alone, and not every choice is one")
        return self


class SpaceModel(_Part):
    """The keys of space.yaml."""

    metric: Annotated[MetricSpec, _as_mapping("name")]
    passing: Passing = Field("flags", alias="pass")
    seed: Annotated[SeedSpec, _as_mapping("name")] | None = None
    arguments: tuple[str, ...] = ()
    """Words of the command line before the parameters."""
    inputs: dict[str, str] = {}
    """Name → file or folder that the script may read, from the folder of space.yaml."""
    files: tuple[str, ...] = ()
    """Further text files that lie beside the script in its workspace."""
    output: str = ""
    """Folder that the script writes and that is kept as the best model."""
    time_limit: float = Field(0.0, ge=0)
    memory_mb: int = Field(0, ge=0)
    network: bool = False
    parameters: dict[str, Any]


class ParametersModel(_Part):
    """The keys of a space.yaml for what needs no more than parameters."""

    parameters: dict[str, Any]


@dataclass(frozen=True)
class ParameterUse:
    """How the script is given a parameter or a fixed value."""

    name: str = ""
    memory: bool = False


@dataclass(frozen=True)
class Parameters:
    """What may be tuned, in the order of the file."""

    layer: Layer
    tuned: tuple[Parameter, ...]
    fixed: Mapping[str, Any]
    """Values that every trial gets alike."""
    uses: Mapping[str, ParameterUse]

    def place(self, name: str) -> str:
        """`space.yaml:7: parameters.NAME`."""
        return f"{self.layer.place('parameters', name)}: parameters.{name}"


@dataclass(frozen=True)
class SpaceFile:
    """A space that holds."""

    model: SpaceModel
    parameters: tuple[Parameter, ...]
    fixed: Mapping[str, Any]
    uses: Mapping[str, ParameterUse]


def parse_space(text: str, source: str) -> SpaceFile:
    """Raises RequestError, one line that tells every fault."""
    layer = _layer(text, source)
    model = _validated(SpaceModel, layer)
    found, faults = _read_parameters(model.parameters, layer)
    faults = faults or _faults_together(model, layer)
    if faults:
        raise RequestError("; ".join(faults))
    return SpaceFile(model, found.tuned, found.fixed, found.uses)


def parse_parameters(text: str, source: str) -> Parameters:
    """Of a file with `parameters` alone. Raises RequestError, one line that tells every fault."""
    layer = _layer(text, source)
    found, faults = _read_parameters(_validated(ParametersModel, layer).parameters, layer)
    if faults:
        raise RequestError("; ".join(faults))
    return found


def _layer(text: str, source: str) -> Layer:
    try:
        return parse_layer(text, source)
    except ToolkitError as error:
        raise RequestError(str(error)) from error


def _validated(kind: type[Model], layer: Layer) -> Model:
    try:
        return kind.model_validate(dict(layer.values))
    except ValidationError as error:
        raise RequestError("; ".join(_told(item, (), layer, kind) for item in error.errors())) from error


def _read_parameters(given: Mapping[str, Any], layer: Layer) -> tuple[Parameters, list[str]]:
    """What holds, and every fault."""
    tuned: list[Parameter] = []
    fixed: dict[str, Any] = {}
    uses: dict[str, ParameterUse] = {}
    faults: list[str] = []
    for name, value in given.items():
        at = ("parameters", name)
        if not NAME.fullmatch(name):
            faults.append(f"{layer.place(*at)}: parameters.{name}: a name has letters, digits, `_`, `-` and `.`")
        if not isinstance(value, dict):
            fixed[name] = value  # `output_dir: out`
            continue
        try:
            spec = ScriptParameter.model_validate(value)
        except ValidationError as error:
            faults += [_told(item, at, layer, ScriptParameter) for item in error.errors()]
            continue
        uses[name] = ParameterUse(spec.name, spec.memory)
        try:
            tuned.append(to_parameter(name, spec, _default(value)))
        except ValueError as error:
            faults.append(f"{layer.place(*at, 'default')}: parameters.{name}.default: {error}")
    if not faults and not any(parameter.tunable for parameter in tuned):
        faults.append(
            f"{layer.place('parameters')}: parameters: nothing to tune; give at least one "
            "NAME: {type: float, range: [LOWEST, HIGHEST], default: VALUE}"
        )
    return Parameters(layer, tuple(tuned), fixed, uses), faults


def _default(given: Mapping[str, Any]) -> Any:
    if given.get("default") is None:
        raise ValueError("is missing: every search starts from the default configuration")
    return given["default"]


def _faults_together(model: SpaceModel, layer: Layer) -> list[str]:
    """What no key shows by itself."""
    faults = []
    try:
        if model.output:
            safe_parts(model.output)
    except StageRefused as error:
        faults.append(f"{layer.place('output')}: output: a folder that the script writes: {error}")
    if model.metric.test and model.metric.test == model.metric.name:
        faults.append(f"{layer.place('metric', 'test')}: metric.test: must be another key than metric.name")
    if model.seed is not None and (name := model.seed.name.strip("-=").replace("-", "_")) in model.parameters:
        faults.append(f"{layer.place('seed')}: seed: {name} is a parameter already")
    return faults


def _told(item: Any, at: tuple[str, ...], layer: Layer, model: type[BaseModel]) -> str:
    """A fault that pydantic found, below the keys `at`, as a line."""
    # `function-before[...]` and the like name a step of the validation, not a key.
    path = [*at, *(str(part) for part in item["loc"] if not set("[(") & set(str(part)))]
    key = ".".join(path)
    place = layer.place(*(path[:-1] if item["type"] == "missing" else path))
    if item["type"] == "missing":
        return f"{place}: {key}: is missing"
    if item["type"] == "extra_forbidden":
        return f"{place}: {key}: {_unknown(path[-1], _keys(model, item['loc'][:-1]))}"
    message = str(item["msg"]).removeprefix("Value error, ")
    hint = _hint(str(item["input"]), _literals(item), 0.5) if item["type"] == "literal_error" else ""
    return f"{place}: {key}: {message[0].lower()}{message[1:]}{_got(item)}{hint and f' ({hint})'}"


def _got(item: Any) -> str:
    return "" if item["type"] == "value_error" or isinstance(item["input"], dict) else f", not {item['input']!r}"


def _hint(word: str, valid: Iterable[str], cutoff: float = 0.6) -> str:
    near = get_close_matches(word.lower(), list(valid), n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else ""


def _literals(item: Any) -> list[str]:
    return re.findall(r"'([^']+)'", str(item["ctx"]["expected"]))


def _unknown(key: str, valid: list[str]) -> str:
    return " ".join(filter(None, ["unknown key;", _hint(key, valid), f"valid: {', '.join(sorted(valid))}"]))


def _keys(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Of the model that `path` leads to."""
    for part in path:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        model = next(_models(field.annotation), model) if field else model
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
