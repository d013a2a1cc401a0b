"""A scenario without a model: everything of the loop, nothing of the work.

The accuracy of an experiment is a smooth function of one number and one choice, measured on items whose
outcomes are Bernoulli draws seeded by item and parameters. It costs next to nothing, so it serves tests and
benchmarks of the loop, and it is the shortest complete example for whoever writes a scenario.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import ScoreUnavailable
from ftagent.core.search_plan import SearchPlan
from ftagent.core.statistics import score_of
from ftagent.core.types import (
    Brief,
    Candidate,
    Estimate,
    Files,
    Parameter,
    Purpose,
    Resources,
    Score,
    Split,
    Stage,
)
from ftagent_noop.options import NoopOptions

SPACE = (
    Parameter("x", "float", default=0.1, low=0.0, high=1.0, description="a number; 0.7 is best"),
    Parameter("mode", "choice", default="plain", choices=("plain", "better"), description="`better` is better"),
)
PROTECTED = Parameter("output", "choice", default="out", choices=("out",), description="a folder", tunable=False)
MODE_LOSS = {"plain": 0.3, "better": 0.0}
COMMAND = """import json, pathlib, sys, time
time.sleep(float(sys.argv[1]))
pathlib.Path("model").mkdir(exist_ok=True)
params = json.loads(pathlib.Path("params.json").read_text())
pathlib.Path("model/params.json").write_text(json.dumps(params, sort_keys=True))
print(json.dumps({"step": 1, "loss": 1.0}))
"""


class NoopScenario:
    """See the module. Its predictions are the file `params.json` of the workspace; none is the baseline."""

    name = "noop"

    def __init__(self, options: NoopOptions, context: ScenarioContext) -> None:
        self.options = options
        self.context = context
        limit = context.limit
        self.items = options.items if limit is None else min(options.items, limit)
        self._plan = _plan(options)

    def brief(self) -> Brief:
        return Brief(
            scenario=self.name,
            goal="Find the parameters that score best.",
            data=f"{self.items} items per split, {self.options.train_rows} training rows, all imaginary.",
            file_contract="params.json: an object with the keys x (0 to 1) and mode (plain or better).",
            hardware=self.context.hardware.describe(),
            metric=self.options.metric,
            direction="maximize",
            space=(*SPACE, PROTECTED) if self._plan else SPACE,
            render=render,
            plan=self._plan,
        )

    def estimate(self) -> Estimate:
        return Estimate(disk_mb=1.0, memory_mb=64.0, seconds_per_loop=0.01 + self.options.sleep)

    def baseline(self) -> Candidate:
        return Candidate(loop=None, files=render({}) if self._plan else {})

    def stages(self, candidate: Candidate, purpose: Purpose, split: Split | None = None) -> list[Stage]:
        untouched = candidate.loop is None and self._plan is None
        if not self.options.stages or purpose != "full" or untouched:
            return []
        command = ("python", "work.py", str(self.options.sleep))
        return [Stage("work", purpose, command, time_limit=60.0 + self.options.sleep,
                      resources=Resources(memory_mb=512), files={"work.py": COMMAND},
                      inputs=("params.json",), outputs=("model/params.json",))]  # fmt: skip

    def inspect(self, stage: Stage, workspace: Path) -> None:
        return None

    async def score(self, predictions: Path, split: Split) -> Score:
        """`predictions` is the workspace, a file in it, or neither when nothing was written.

        Raises ScoreUnavailable when `params.json` is no object of known parameters.
        """
        text = _read(predictions)
        try:
            chance = self._chance(json.loads(text)) if text else self.options.floor
        except (ValueError, TypeError, KeyError) as error:
            raise ScoreUnavailable(f"params.json: not the parameters of the noop scenario ({error})") from error
        return score_of(self.options.metric, self._outcomes(split, text, chance))

    def _outcomes(self, split: Split, text: str, chance: float) -> dict[str, float]:
        # An item's difficulty is mostly shared between experiments, so that paired tests gain from it;
        # the rest is an experiment's own luck.
        difficulty = Random(f"{self.context.seed}/{split}")
        luck = Random(f"{self.context.seed}/{split}/{text}")
        return {
            f"{split}-{index}": float(0.7 * difficulty.random() + 0.3 * luck.random() < chance)
            for index in range(self.items)
        }

    def _chance(self, params: Mapping[str, Any]) -> float:
        x = float(params["x"])
        if not 0.0 <= x <= 1.0:
            raise ValueError(f"x is {x}, it must be from 0 to 1")
        quality = math.exp(-((x - 0.7) ** 2) / 0.08) * (1.0 - MODE_LOSS[str(params["mode"])])
        return self.options.floor + (self.options.ceiling - self.options.floor) * quality


def _plan(options: NoopOptions) -> SearchPlan | None:
    if not options.plan:
        return None
    return SearchPlan(options.plan, options.sampler, options.keys, options.rounds, interactive=True)


def _read(predictions: Path) -> str:
    folder = predictions if predictions.is_dir() else predictions.parent
    try:
        return (folder / "params.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def render(params: Mapping[str, Any]) -> Files:
    """The files of an experiment: its parameters, defaults filled in."""
    filled = {parameter.name: params.get(parameter.name, parameter.default) for parameter in SPACE}
    return {"params.json": json.dumps(filled, sort_keys=True) + "\n"}
