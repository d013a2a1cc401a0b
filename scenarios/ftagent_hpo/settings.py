"""AGENT_SETTINGS of hpo.yaml: how an agent is to search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ftagent.core.search_plan import Constraint, Halving, Objective, SearchPlan


class AgentSettings(BaseModel):
    """Keys are written in capitals."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=str.upper, allow_inf_nan=False)

    interactive_mode: bool | Literal["auto"] = Field(
        "auto", description="ask y/n after every round; auto: on a terminal, unless --auto"
    )
    rounds_per_param: int = Field(3, ge=1, le=50, description="rounds for each priority key")
    max_priority_keys: int = Field(3, ge=1, le=50, description="most keys that are tuned, one after the other")
    priority_keys: tuple[str, ...] = Field((), description="keys to tune, in order; empty: the agent chooses")
    mode: Literal["univariate", "joint"] = Field("univariate", description="one key at a time, or all at once")
    sampler: Literal["auto", "tpe", "gp", "cmaes", "random"] = Field("auto", description="of mode joint")
    early_stopping: bool = Field(False, description="stop trials that cannot win, by their live metric")
    reduction: float = Field(2.0, gt=1, le=16, description="early stopping: the best 1/N of a rung go on")
    rungs: int = Field(3, ge=1, le=10, description="early stopping: how often a trial is looked at")
    objectives: tuple[Objective, ...] = Field((), description="besides the metric: names, or name: minimize|maximize")
    constraints: tuple[Constraint, ...] = Field((), description="name: the most that a recommended one may have")
    confirm_seeds: Annotated[int, Field(ge=0, le=20)] | Literal["auto"] = Field(
        "auto", description="repeated seeds for what is within noise of the best; auto: what the task needs"
    )
    protected_keys: tuple[str, ...] = Field((), description="keys that nobody may change")

    @field_validator("priority_keys", "protected_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("objectives", mode="before")
    @classmethod
    def _objectives(cls, value: object) -> object:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, Mapping):
            value = [{name: direction} for name, direction in value.items()]
        if not isinstance(value, list | tuple):
            return value
        return [_objective(one) for one in value]

    @field_validator("constraints", mode="before")
    @classmethod
    def _constraints(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value if isinstance(value, tuple) else _refuse("must be a mapping such as seconds: 60")
        # As the model is, so are the records in it validated by names in capitals.
        return [{"NAME": str(name), "AT_MOST": most} for name, most in value.items()]

    def plan(self, live_metric: str = "") -> SearchPlan:
        """For the brief. Raises ValueError for early stopping without a live metric."""
        halving = None
        if self.early_stopping:
            if not live_metric:
                raise ValueError("EARLY_STOPPING needs a live metric, which this task does not have")
            halving = Halving(live_metric, self.reduction, self.rungs)
        return SearchPlan(
            mode=self.mode, sampler=self.sampler, keys=self.max_priority_keys,
            rounds_per_parameter=self.rounds_per_param, priority=self.priority_keys, halving=halving,
            objectives=self.objectives, constraints=self.constraints, interactive=self.interactive_mode is not False,
        )  # fmt: skip


def setting_names() -> list[str]:
    """As they are written."""
    return [name.upper() for name in AgentSettings.model_fields]


def _objective(one: Any) -> Any:
    if isinstance(one, str):
        return {"NAME": one}
    if isinstance(one, Mapping) and len(one) == 1 and "name" not in one:
        ((name, direction),) = one.items()
        return {"NAME": str(name), "DIRECTION": direction}
    return {str(key).upper(): value for key, value in one.items()} if isinstance(one, Mapping) else one


def _refuse(why: str) -> Any:
    raise ValueError(why)
