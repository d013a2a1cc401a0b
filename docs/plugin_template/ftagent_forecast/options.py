"""Options of the `forecast` scenario (`-o key=value`). Keep this module light: help and checks import it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ForecastOptions(BaseModel):
    """What `-o` may set; other keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: int = Field(200, ge=1, description="series per split; --limit lowers it")
    noise: float = Field(1.0, ge=0.0, description="standard deviation of a value around its level")
    tolerance: float = Field(1.0, gt=0.0, description="a forecast this close to the answer is right")
