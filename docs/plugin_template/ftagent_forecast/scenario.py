"""Forecast the next value of a noisy series by exponential smoothing: predict inside, score outside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import ScoreUnavailable
from ftagent.core.statistics import score_of
from ftagent.core.types import Brief, Candidate, Estimate, Files, Parameter, Purpose, Score, Split, Stage
from ftagent_forecast.options import ForecastOptions

SPACE = (Parameter("smoothing", "float", default=0.5, low=0.01, high=1.0, log=True, description="weight of news"),)


class ForecastScenario:
    name = "forecast"

    def __init__(self, options: ForecastOptions, context: ScenarioContext) -> None:
        self.options = options
        self.context = context
        self.items = min(options.items, context.limit or options.items)

    def brief(self) -> Brief:
        return Brief(
            scenario=self.name,
            goal="Forecast the next value of each series.",
            data="questions.jsonl: id and past, a list of 12 numbers",
            file_contract="predict.py reads questions.jsonl and params.json, writes predictions.jsonl (id, output)",
            hardware=self.context.hardware.describe(),
            metric="accuracy",
            direction="maximize",
            space=SPACE,
            render=render,
        )

    def estimate(self) -> Estimate:
        return Estimate(disk_mb=1, memory_mb=64, seconds_per_loop=1)

    def baseline(self) -> Candidate:
        return Candidate(None, render({"smoothing": 1.0}))  # what everybody does first: repeat the last value

    def stages(self, candidate: Candidate, purpose: Purpose, split: Split | None = None) -> list[Stage]:
        if purpose == "full":
            return []  # a scenario that trains does it here and leaves the result in the folder `model`
        items = self._items(split or "debug")[: 3 if purpose == "debug" else None]
        questions = "".join(json.dumps({"id": name, "past": past}) + "\n" for name, past, _ in items)
        return [
            Stage("predict", purpose, ("python", "predict.py"), time_limit=60, files={"questions.jsonl": questions},
                  inputs=("predict.py", "params.json"), outputs=("predictions.jsonl",))
        ]  # fmt: skip

    def inspect(self, stage: Stage, workspace: Path) -> None:
        """Nothing that a stage leaves here could break a rule."""

    async def score(self, predictions: Path, split: Split) -> Score:
        outputs = read(predictions)
        right = {
            name: float(name in outputs and abs(outputs[name] - answer) <= self.options.tolerance)
            for name, _, answer in self._items(split)
        }
        return score_of("accuracy", right)

    def _items(self, split: str) -> list[tuple[str, list[float], float]]:
        """(id, past, answer). Each split has a seed of its own; only id and past enter a workspace."""
        random = Random(f"{self.context.seed}/{split}")
        items = []
        for index in range(self.items):
            level, values = random.gauss(0, 5), []
            for _ in range(13):
                level += random.gauss(0, 0.3)
                values.append(level + random.gauss(0, self.options.noise))
            items.append((f"{split}-{index}", values[:-1], level))
        return items


def render(params: Mapping[str, Any]) -> Files:
    """The files of an experiment."""
    smoothing = params.get("smoothing", SPACE[0].default)
    code = files("ftagent_forecast").joinpath("predict.py").read_text()
    return {"params.json": json.dumps({"smoothing": smoothing}) + "\n", "predict.py": code}


def read(predictions: Path) -> dict[str, float]:
    """Forecast by id. Raises ScoreUnavailable: what a command left is untrusted."""
    try:
        rows = [json.loads(line) for line in predictions.read_text().splitlines()]
        return {row["id"]: float(row["output"]) for row in rows}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ScoreUnavailable(f"{predictions.name}: {error}") from error
