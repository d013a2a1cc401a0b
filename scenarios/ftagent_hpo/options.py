"""Options of the `hpo` scenario (`-o key=value`)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class HpoOptions(BaseModel):
    """Keys of hpo.yaml that are given on the command line."""

    model_config = ConfigDict(extra="allow", frozen=True)
