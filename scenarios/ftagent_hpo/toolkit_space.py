"""The parameters of task `toolkit`: keys of the toolkit's train.yaml, with or without a space.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftagent.core.errors import RequestError
from ftagent.core.types import Parameter
from ftagent.toolkit.config import TrainConfig, validate_config
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.presets import unknown_key
from ftagent.toolkit.yaml_files import parse_value
from ftagent_hpo.config import HpoConfig
from ftagent_hpo.space_file import Parameters, parse_parameters
from ftagent_hpo.values import in_space
from ftagent_llm.options import LlmOptions

OF_THE_RUN = (
    "train_tokens", "train_rows", "dtype", "device", "checkpoint_steps", "memory_mb", "pack_tokens",
    "max_new_tokens", "temperature", "top_p", "predict_batch_size", "predict_batch_tokens",
)  # fmt: skip
"""Options of the `llm` scenario that `-o` may set here too: the same for every trial."""
_NEEDED = {"model_path": "model", "dataset_path": "rows", "save_model_path": "out", "max_tokens": 1}


@dataclass(frozen=True)
class TrainSpace:
    """`fixed`: keys of train.yaml that every trial has alike."""

    parameters: tuple[Parameter, ...]
    fixed: Mapping[str, Any]


def llm_options(config: HpoConfig) -> LlmOptions:
    """Raises RequestError."""
    from pydantic import ValidationError

    given = {key.lower(): text for key, text in config.overrides.items() if key.lower() in OF_THE_RUN}
    try:
        return LlmOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise RequestError(f"-o {name}={given.get(name)}: {first['msg'].lower()}") from error


def train_space(config: HpoConfig, own: Sequence[Parameter], set_elsewhere: Mapping[str, Any], space: str,
                text: str | None) -> TrainSpace:  # fmt: skip
    """`own`: the parameters of the `llm` scenario's space that are keys of train.yaml. `set_elsewhere`: keys that are
    the same for every trial. Raises RequestError, one line that tells every fault."""
    valid = [name for name in TrainConfig.model_fields if name not in set_elsewhere]
    if text is None:
        found = TrainSpace(_default_space(own), {})
    else:
        read = parse_parameters(text, space)
        faults = _faults(read, valid)
        if faults:
            raise RequestError("; ".join(faults))
        found = TrainSpace(read.tuned, read.fixed)
    given = config.overrides_for([*valid, *OF_THE_RUN])
    protected = config.settings.protected_keys
    parameters = tuple(_with_default(p, given.get(p.name), p.name in protected) for p in found.parameters)
    names = {parameter.name for parameter in parameters}
    fixed = {**found.fixed, **_fixed({k: v for k, v in given.items() if k not in names | set(OF_THE_RUN)})}
    return TrainSpace(parameters, fixed)


def _default_space(own: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """The training half of the `llm` scenario's space, its lists of sizes as ranges, and the weight decay."""
    found = []
    for parameter in own:
        if parameter.name in ("rank", "batch_size") and len(parameter.choices) > 1:
            parameter = replace(
                parameter, kind="int", choices=(), log=True, low=float(min(parameter.choices)),
                high=float(max(parameter.choices)),
            )  # fmt: skip
        if len(parameter.choices) != 1:
            found.append(parameter)
    decay = Parameter("weight_decay", "float", default=0.0, low=0.0, high=0.1, description="of AdamW")
    return (*found, decay)


def _faults(read: Parameters, valid: Sequence[str]) -> list[str]:
    """A line for each name that is no key, or that has a value which train.yaml refuses."""
    values: dict[str, list[Any]] = {name: [value] for name, value in read.fixed.items()}
    for parameter in read.tuned:
        ends = [end for end in (parameter.low, parameter.high) if end is not None]
        whole = [int(end) if parameter.kind == "int" else end for end in ends]
        values[parameter.name] = [*parameter.choices, *whole]
    faults = []
    for name, extremes in values.items():
        if name not in valid:
            faults.append(f"{read.place(name)}: {unknown_key(name, valid)}")
            continue
        faults += [f"{read.place(name)}: {why}" for value in extremes if (why := _wrong(name, value))]
    return faults


def _wrong(name: str, value: Any) -> str:
    """What train.yaml has against a value; empty when nothing."""
    try:
        validate_config({**_NEEDED, name: value}, TrainConfig, "")
    except ToolkitError as error:
        return str(error).removeprefix(": ").removeprefix(f"{name}: ")
    return ""


def _with_default(parameter: Parameter, text: str | None, protected: bool) -> Parameter:
    parameter = replace(parameter, tunable=parameter.tunable and not protected)
    if text is None:
        return parameter
    try:
        return replace(parameter, default=in_space(parameter, _value(parameter.name, text)))
    except ValueError as error:
        raise RequestError(f"-o {parameter.name}={text}: {error}") from error


def _fixed(given: Mapping[str, str]) -> dict[str, Any]:
    values = {name: _value(name, text) for name, text in given.items()}
    for name, value in values.items():
        if why := _wrong(name, value):
            raise RequestError(f"-o {name}={given[name]}: {why}")
    return values


def _value(name: str, text: str) -> Any:
    try:
        return parse_value(text, f"-o {name}={text}")
    except ToolkitError as error:
        raise RequestError(str(error)) from error
