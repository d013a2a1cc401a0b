"""What a model answers when it tunes. Values are read leniently: what is wrong with them is said in a note, and the
round is not lost; only a reply without the form is asked for again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema, create_model

from ftagent.agents.replies import Reply
from ftagent.core.types import Parameter

_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}


class RoundReply(Reply):
    """A round of one parameter; `round_type` adds `parameter` and `value`."""

    reason: str = Field(description="why this value, from the evidence above")
    expected_effect: str = ""


class StartReply(RoundReply):
    """The first round; `start_type` adds `keys`, `base`, `parameter` and `value`."""

    why: str = Field(description="why these parameters and this base configuration")


_SCALAR = WithJsonSchema({"type": ["number", "string", "boolean"]})
_NUMBER = WithJsonSchema({"type": "number"})


class RangeReply(Reply):
    parameter: str
    low: Annotated[Any, _NUMBER]
    high: Annotated[Any, _NUMBER]


class ChoicesReply(Reply):
    parameter: str
    values: list[Annotated[Any, _SCALAR]]


class FixedReply(Reply):
    parameter: str
    value: Annotated[Any, _SCALAR]


class StructureReply(Reply):
    """Where a sampler is to look."""

    important: tuple[str, ...] = Field((), description="parameters that are varied, the most important first")
    ranges: tuple[RangeReply, ...] = ()
    choices: tuple[ChoicesReply, ...] = ()
    fixed: tuple[FixedReply, ...] = ()
    why: str = Field(description="the evidence for this")


def round_type(parameter: Parameter) -> type[RoundReply]:
    """A value of `parameter`."""
    return create_model(
        "Round", __base__=RoundReply,
        parameter=(_name([parameter.name]), ...), value=(_value(parameter), ...),
    )  # fmt: skip


def start_type(space: Sequence[Parameter], most: int) -> type[StartReply]:
    """Keys, a base configuration, and a first value of the first key."""
    names = [parameter.name for parameter in space]
    properties = {parameter.name: _schema(parameter, null=True) for parameter in space}
    base = {"type": ["object", "null"], "properties": properties, "additionalProperties": False, "required": names}
    keys: Any = list[_name(names)]  # type: ignore[misc]  # a type that is made here
    return create_model(
        "Start", __base__=StartReply,
        keys=(keys, Field(description=f"at most {most} parameters to tune, the most promising first")),
        base=(Annotated[Any, WithJsonSchema(base)], Field(None, description="values that differ from the defaults")),
        parameter=(_name(names), Field(description="the first of keys")),
        value=(Annotated[Any, _SCALAR], Field(description="its first new value")),
    )  # fmt: skip


def _name(names: Sequence[str]) -> Any:
    return Annotated[str, WithJsonSchema({"type": "string", "enum": list(names)})]


def _value(parameter: Parameter) -> Any:
    return Annotated[Any, WithJsonSchema(_schema(parameter))]


def _schema(parameter: Parameter, null: bool = False) -> dict[str, Any]:
    end = ["null"] if null else []
    if parameter.kind == "choice":
        kinds = sorted({_JSON_TYPES[type(value)] for value in parameter.choices if type(value) in _JSON_TYPES})
        return {"enum": [*parameter.choices, *([None] if null else [])], "type": [*kinds, *end]}
    bounds = {"minimum": parameter.low, "maximum": parameter.high}
    kind = "integer" if parameter.kind == "int" else "number"
    return {"type": [kind, *end]} | {name: bound for name, bound in bounds.items() if bound is not None}
