"""The `hpo` scenario: a better configuration for a training script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import RequestError
from ftagent.core.types import Brief, Candidate, Estimate, Files, Purpose, Score, Split, Stage
from ftagent_hpo.options import HpoOptions


class HpoScenario:
    """See the module."""

    name = "hpo"

    def __init__(self, options: HpoOptions, context: ScenarioContext) -> None:
        """Raises RequestError."""
        raise RequestError("--scenario hpo: comes with a later version")

    def brief(self) -> Brief:
        raise NotImplementedError

    def estimate(self) -> Estimate:
        raise NotImplementedError

    def baseline(self) -> Candidate:
        raise NotImplementedError

    def render(self, params: Mapping[str, Any]) -> Files:
        raise NotImplementedError

    def stages(self, candidate: Candidate, purpose: Purpose, split: Split | None = None) -> list[Stage]:
        raise NotImplementedError

    def inspect(self, stage: Stage, workspace: Path) -> None:
        raise NotImplementedError

    async def score(self, predictions: Path, split: Split) -> Score:
        raise NotImplementedError
