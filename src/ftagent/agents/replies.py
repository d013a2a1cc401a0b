"""What a model answers in each step: forms for the client, and the rules that a form alone cannot say."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, create_model, model_validator

from ftagent.agents.views import experiment_of
from ftagent.core.types import Brief, Files, Parameter, Trace
from ftagent.core.workspace import UnsafePath, safe_parts

LONGEST_TITLE = 200
"""Characters."""
_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}


def _closed(schema: dict[str, Any]) -> None:
    """For models that are held to a schema every field is wanted; a reply that lacks an optional one is still read."""
    schema["additionalProperties"] = False
    schema["required"] = list(schema.get("properties", {}))
    for field in schema.get("properties", {}).values():
        field.pop("default", None)


class Reply(BaseModel):
    """Fields that nobody asked for are dropped: a reply can say no more than its form has."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=(), json_schema_extra=_closed)


class Proposal(Reply):
    """The propose step."""

    title: str = Field(description="what is tried, in one line")
    reason: str = Field(description="why it should work, from what is known")
    kind: Literal["draft", "improve", "debug"]
    parent: int | None = Field(None, description="the loop it is built on; null for a draft")
    expected_effect: str = ""
    measure: str = Field("", description="what to look at afterwards, apart from the score")


class Coding(Reply):
    """The head of the code step; the files follow it."""

    use_template: bool = Field(False, description="true: files that are not given are rendered from the parameters")


class Repair(Reply):
    """The head of the repair step; changed files follow it."""

    diagnosis: str = Field("", description="what went wrong, in one sentence")


class ErrorCategory(Reply):
    category: str
    cause: str


class Reflection(Reply):
    """The feedback step."""

    observations: list[str] = Field(description="at most five, each one sentence with its evidence")
    error_categories: list[ErrorCategory] = Field(default=[], description="of wrong outputs, with their cause")
    hypothesis_held: Literal["yes", "no", "unclear"]
    next: str = Field(description="what to try next, in one or two sentences")


def proposal_type(brief: Brief) -> type[Proposal]:
    """`Proposal` with a field `params` that holds values of the search space and nothing else."""
    return create_model("Proposal", __base__=Proposal, params=_params_field(brief.space))


def coding_type(brief: Brief) -> type[Coding]:
    """`Coding` with a field `params`."""
    return create_model("Coding", __base__=Coding, params=_params_field(brief.space))


def params_of(reply: Reply) -> dict[str, Any]:
    """The parameters that a reply sets."""
    params: BaseModel | None = getattr(reply, "params", None)
    return params.model_dump(by_alias=True, exclude_none=True) if params is not None else {}


def proposal_check(trace: Trace) -> Callable[[Proposal], None]:
    """Raises ValueError for a parent that cannot be built on, or a title that is none."""
    tried = [experiment for experiment in trace.experiments if not experiment.hypothesis.abandoned]
    scored = [experiment.loop for experiment in tried if experiment.validation is not None]
    failed = [experiment.loop for experiment in tried if experiment.failure]

    def check(proposal: Proposal) -> None:
        title = " ".join(proposal.title.split())
        if not title or len(title) > LONGEST_TITLE:
            raise ValueError(f"title: one line of 1 to {LONGEST_TITLE} characters is wanted, this has {len(title)}")
        parent = proposal.parent
        if parent is None or parent in scored:
            return
        if parent not in failed:
            raise ValueError(f"parent: {parent} cannot be built on; null or {_choices(scored, failed)}")
        if proposal.kind != "debug":
            raise ValueError(f"parent: loop {parent} failed, only kind debug can mend it; else {_choices(scored, [])}")

    return check


def kind_of(proposal: Proposal, trace: Trace) -> Literal["draft", "improve", "debug"]:
    """What a checked proposal is: without parent a draft, on a failed one debug, else improve."""
    if proposal.parent is None:
        return "draft"
    parent = experiment_of(trace, proposal.parent)
    return "debug" if parent is not None and parent.validation is None else "improve"


def check_names(files: Files) -> None:
    """Raises ValueError for a file name that leads out of the workspace."""
    for name in files:
        try:
            safe_parts(name)
        except UnsafePath as error:
            raise ValueError(f"{error}; give a relative name inside the workspace") from error


def _choices(scored: Sequence[int], failed: Sequence[int]) -> str:
    built = f"one of the scored loops {', '.join(map(str, scored))}" if scored else "null (no loop is scored)"
    mended = f", or to mend one of the failed loops {', '.join(map(str, failed))}" if failed else ""
    return built + mended


def _params_field(space: Sequence[Parameter]) -> Any:
    # Names of parameters need not be names of Python, so fields are numbered and aliases carry the names.
    fields: dict[str, Any] = {
        f"p{number}": (_value_type(parameter), Field(None, alias=parameter.name))
        for number, parameter in enumerate(space)
    }
    known = [parameter.name for parameter in space]

    class Known(Reply):
        @model_validator(mode="before")
        @classmethod
        def _only_known(cls, value: Any) -> Any:
            for name in value if isinstance(value, dict) else ():
                if name not in known:
                    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
                    hint = f"did you mean {near[0]!r}? " if near else ""
                    raise ValueError(f"{name!r} is no parameter; {hint}valid: {', '.join(known) or 'none'}")
            return value

    params: Any = create_model("Params", __base__=Known, **fields)
    return (params | None, Field(None, description="values that differ from the parent's; null for none"))


def _value_type(parameter: Parameter) -> Any:
    """The type of one parameter's value. What is written as text but means a choice or number is understood."""
    if parameter.kind == "choice":
        kinds = {_JSON_TYPES[type(value)] for value in parameter.choices if type(value) in _JSON_TYPES}
        schema: dict[str, Any] = {"enum": [*parameter.choices, None], "type": [*sorted(kinds), "null"]}
    else:
        bounds = {"minimum": parameter.low, "maximum": parameter.high}
        kind = "integer" if parameter.kind == "int" else "number"
        schema = {"type": [kind, "null"]} | {name: bound for name, bound in bounds.items() if bound is not None}
    return Annotated[Any, AfterValidator(lambda value: _value(parameter, value)), WithJsonSchema(schema)]


def _value(parameter: Parameter, value: Any) -> Any:
    if value is None:
        return None
    if parameter.kind == "choice":
        same = [one for one in parameter.choices if type(one) is type(value) and one == value]
        same = same or [one for one in parameter.choices if str(one) == str(value)]
        if not same:
            raise ValueError(f"must be one of {', '.join(map(str, parameter.choices))}")
        return same[0]
    try:
        number = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError):
        number = float("nan")
    low = float("-inf") if parameter.low is None else parameter.low
    high = float("inf") if parameter.high is None else parameter.high
    if not low <= number <= high or (parameter.kind == "int" and number != int(number)):
        kind = "a whole number" if parameter.kind == "int" else "a number"
        raise ValueError(f"must be {kind} from {low} to {high}")
    return int(number) if parameter.kind == "int" else number
