"""Options of the `noop` scenario (`-o key=value`)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class NoopOptions(BaseModel):
    """What the scenario pretends to measure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: int = Field(0, ge=0, le=1, description="1 runs one real, trivial command per experiment")
    items: int = Field(20, ge=1, description="items per split; --limit lowers it")
    metric: str = Field("accuracy", description="name of the metric")
    ceiling: float = Field(0.8, ge=0.0, le=1.0, description="accuracy at the best parameters")
    floor: float = Field(0.4, ge=0.0, le=1.0, description="accuracy of the baseline and of the worst parameters")
    train_rows: int = Field(100, ge=1, description="rows that the brief says there are")
    sleep: float = Field(0.0, ge=0.0, description="seconds that the command of stages=1 takes")
    plan: Literal["", "univariate", "joint"] = Field(
        "", description="how the parameters are tuned; the baseline is then the default configuration"
    )
    sampler: str = Field("auto", description="of plan=joint")
    rounds: int = Field(3, ge=1, description="rounds per parameter of plan=univariate")
    keys: int = Field(3, ge=1, description="most priority parameters of plan=univariate")
