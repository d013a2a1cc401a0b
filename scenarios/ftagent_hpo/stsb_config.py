"""DEFAULT_CONFIG and TUNABLE_KEYS of the task `stsb`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftagent.core.errors import RequestError
from ftagent.core.types import Parameter
from ftagent_hpo.config import PACKAGED, HpoConfig, in_words, packaged_text, read_config, unknown
from ftagent_hpo.parameters import to_parameter

TUNABLE = ("LEARNING_RATE", "NUM_TRAIN_EPOCHS", "TRAIN_BATCH_SIZE", "WARMUP_RATIO", "WEIGHT_DECAY", "LOSS")
"""Keys that may stand under TUNABLE_KEYS: all others decide what is trained, and where."""


class StsbConfig(BaseModel):
    """Keys are written in capitals. What the file does not say has these values."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=str.upper, allow_inf_nan=False)

    base_model: str = Field("minilm", min_length=1)
    num_train_epochs: int = Field(1, ge=1, le=1000)
    train_batch_size: int = Field(32, ge=1, le=2**20)
    learning_rate: float = Field(2e-5, gt=0, le=1)
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    weight_decay: float = Field(0.01, ge=0, le=1)
    loss: Literal["cosine", "cosent"] = "cosine"
    eval_steps: int = Field(10, ge=0)
    save_steps: int = Field(0, ge=0)
    stsb_train_split: str = Field("train[-800:]", min_length=1)
    stsb_path: str = ""
    seed: int = Field(42, ge=0, lt=2**31)
    memory_mb: int = Field(0, ge=0)
    output_dir_root: str = Field("model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)

    def values(self) -> dict[str, Any]:
        """By their names in the file."""
        return self.model_dump(by_alias=True)


def key_names() -> list[str]:
    """As they are written."""
    return [name.upper() for name in StsbConfig.model_fields]


def read_defaults(config: HpoConfig, base_model: str) -> StsbConfig:
    """DEFAULT_CONFIG with `-o` on top; `base_model` is that of --base-model, if any. Raises RequestError."""
    names = key_names()
    given = config.overrides_for(names)
    values = dict(config.default_config)
    for key in values:
        if key not in names:
            raise RequestError(f"{config.place(str(key))}: {unknown(str(key), names)}")
    if base_model:
        values["BASE_MODEL"] = base_model
    try:
        return StsbConfig.model_validate({**values, **given})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise RequestError(f"{_short(config, name, given)}: {in_words(error).removeprefix(f'{name}: ')}") from error


def build_space(config: HpoConfig, defaults: StsbConfig) -> tuple[Parameter, ...]:
    """Every key; those that may not be changed have one choice. Raises RequestError."""
    specs = config.specs(read_config(packaged_text(), PACKAGED, {}).specs({}))
    protected = {name.upper() for name in config.settings.protected_keys}
    space = []
    for name, value in defaults.values().items():
        spec = specs.pop(name, None)
        if spec is None or name in protected or not spec.tunable:
            space.append(Parameter(name, "choice", value, choices=(value,), tunable=False))
            continue
        if name not in TUNABLE:
            raise RequestError(f"{config.place(name, 'TUNABLE_KEYS')}: may not be tuned; valid: {', '.join(TUNABLE)}")
        try:
            parameter = to_parameter(name, spec, value)
        except ValueError as error:
            raise RequestError(f"{config.place(name)}: the default {error} (TUNABLE_KEYS)") from error
        _check_ends(config, parameter, defaults)
        space.append(parameter)
    if specs:
        name = next(iter(specs))
        raise RequestError(f"{config.place(name, 'TUNABLE_KEYS')}: {unknown(name, TUNABLE)}")
    return tuple(space)


def clamped(space: tuple[Parameter, ...], params: Mapping[str, Any]) -> dict[str, Any]:
    """Every key's value: the default where `params` is silent, wrong or may not speak; else inside its range."""
    return {parameter.name: _clamp(parameter, params.get(parameter.name, parameter.default)) for parameter in space}


def _clamp(parameter: Parameter, value: Any) -> Any:
    if parameter.kind == "choice":
        return value if parameter.tunable and value in parameter.choices else parameter.default
    try:
        number = float(value)
        assert parameter.low is not None
        assert parameter.high is not None
        inside = min(max(number, parameter.low), parameter.high)
        return round(inside) if parameter.kind == "int" else inside
    except (TypeError, ValueError, OverflowError):
        return parameter.default


def _check_ends(config: HpoConfig, parameter: Parameter, defaults: StsbConfig) -> None:
    """The values at the ends of a range must be ones that the training takes."""
    ends = parameter.choices if parameter.kind == "choice" else (parameter.low, parameter.high)
    for end in ends:
        try:
            StsbConfig.model_validate({**defaults.values(), parameter.name: end})
        except ValidationError as error:
            why = in_words(error).removeprefix(f"{parameter.name}: ")
            raise RequestError(f"{config.place(parameter.name, 'TUNABLE_KEYS')}: {end}: {why}") from error


def _short(config: HpoConfig, name: str, given: Mapping[str, str]) -> str:
    return config.place(name) if name in given or name in config.default_config else name
