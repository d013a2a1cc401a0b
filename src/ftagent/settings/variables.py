"""How one variable is declared: its names, its part of the product and what to say when it is set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import AliasChoices, Field

Part = Literal["loop", "environments", "llm agent", "llm scenario", "toolkit", "tabular", "fleet"]


@dataclass(frozen=True)
class Variable:
    """A variable's names (the first is the one to write), who owns it, and its fate in this version."""

    names: tuple[str, ...]
    part: Part
    description: str
    pending: bool = False
    """Its part of the product is not built yet: accepted with a warning."""
    replaced_by: str = ""
    """It means nothing here and never will; this text says what does its work."""

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def warning(self) -> str:
        """What a user who sets it is told; empty where it is effective."""
        if self.replaced_by:
            return f"{self.name} is accepted but means nothing here: {self.replaced_by}"
        if self.pending:
            return f"{self.name} is accepted but not used yet: it belongs to the {self.part} part"
        return ""


def variable(
    name: str,
    default: Any,
    part: Part,
    description: str,
    *,
    also: tuple[str, ...] = (),
    pending: bool = False,
    replaced_by: str = "",
    **constraints: Any,
) -> Any:
    """A settings field read from `name` or one of `also`; `constraints` are pydantic's (`ge`, `gt` …)."""
    declared = Variable((name, *also), part, description, pending, replaced_by)
    return Field(
        default,
        validation_alias=AliasChoices(name, *also),
        description=description,
        json_schema_extra={"variable": declared},  # type: ignore[dict-item]  # read back by `declared` alone
        **constraints,
    )


def declared(field: Any) -> Variable:
    """The Variable that a settings field was declared with."""
    found = field.json_schema_extra["variable"]
    assert isinstance(found, Variable)
    return found
