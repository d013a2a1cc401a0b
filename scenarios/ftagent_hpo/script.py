"""Task `script`: any training script, tuned over its space.yaml.

A trial is the script with a configuration, under the wrapper that stops it early and lowers what costs memory; what it
wrote into metrics.json or metrics.jsonl is its score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import RequestError, ScoreUnavailable
from ftagent.core.types import (
    Candidate,
    Direction,
    Estimate,
    Files,
    Mount,
    Parameter,
    Resources,
    Score,
    Split,
    Stage,
)
from ftagent.core.workspace import safe_parts
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.yaml_files import parse_value
from ftagent_hpo.config import HpoConfig
from ftagent_hpo.script_files import INTERPRETERS, script_files
from ftagent_hpo.script_scores import score_rows
from ftagent_hpo.task import FIRST_SEED, PREDICTIONS, Described
from ftagent_hpo.trials import (
    ADJUSTED,
    COMMAND,
    STOPPED,
    STOPPING,
    TRIAL,
    memory_bounds,
    refuse_if_stopped,
)
from ftagent_hpo.values import in_space

CONFIG = "config.json"
COLLECT = "collect.json"
COLLECT_COMMAND = ("python", "-P", "-m", "ftagent.toolkit.trial_metrics", COLLECT)
NO_OUTPUT = "model"
"""The folder of a script that keeps nothing: a run wants one for each trained configuration."""
METRICS = ("metrics.json", "metrics.jsonl")
_SHOWN_SCRIPT = 12_000


class ScriptTask:
    """See the module; implements `Task`."""

    name = "script"
    confirm_seeds = 3
    """The fewest pairs that a paired t test makes something of; the first seed chose, so it proves nothing."""
    tests_seeds = True

    def __init__(self, config: HpoConfig, context: ScenarioContext) -> None:
        """Raises RequestError, one line: a fault of the script, its space, or `-o`."""
        self.context = context
        self.files = script_files(context.script, context.space, context.documents)
        self.model = self.files.space.model
        self.metric: str = self.model.metric.name
        self.direction: Direction = self.model.metric.direction
        self.live_metric = self.model.metric.live_metric
        self.model_folder = "/".join(safe_parts(self.model.output or NO_OUTPUT))
        self.seed = context.seed
        own = self.files.space
        given = config.overrides_for([*(p.name for p in own.parameters), *own.fixed])
        protected = set(config.settings.protected_keys)
        tuned = tuple(_with_default(p, given.get(p.name), p.name in protected) for p in own.parameters)
        self.fixed = {name: _fixed(name, value, given.get(name)) for name, value in own.fixed.items()}
        self.space: tuple[Parameter, ...] = (
            *tuned,
            *(Parameter(name, "choice", value, choices=(value,), tunable=False) for name, value in self.fixed.items()),
        )
        self._places = [*METRICS, *(f"{self.model_folder}/{name}" for name in METRICS)]

    def describe(self) -> Described:
        script, metric = self.files.name, self.model.metric
        repeated = f", each trained with {self._repeats} seeds" if self._repeats > 1 else ""
        inputs = ", ".join(self.files.inputs) or "none"
        return Described(
            goal=f"Find the configuration of {script} with the best {metric.name} ({metric.direction}).",
            data=f"What {script} reads (inputs: {inputs}); a trial is one training{repeated}.",
            file_contract=f"{CONFIG}: an object with the parameters of {script}.",
            details=f"{script}, whose parameters are tuned:\n```\n{self.files.script[:_SHOWN_SCRIPT]}\n```",
            required_files=(CONFIG,),
            reserved_files=(*METRICS, *self.files.files, script, TRIAL, COLLECT, STOPPED, ADJUSTED),
        )

    def render(self, params: Mapping[str, Any]) -> Files:
        values = {parameter.name: params.get(parameter.name, parameter.default) for parameter in self.space}
        return {CONFIG: json.dumps(values, indent=1) + "\n"}

    def train(self, candidate: Candidate, group: str, seed: int, folder: str) -> list[Stage]:
        first = self.seed + (seed - self.seed) * self._repeats
        if group != FIRST_SEED and self.model.seed is None:
            return []  # it takes no seed: another training would say the same
        return [
            self._trial(candidate, place, first + number, group == FIRST_SEED and number == 0, number)
            for number, place in enumerate(self._folders(folder))
        ]

    def predict(self, candidate: Candidate, split: Split, group: str, seed: int, folder: str) -> list[Stage]:
        metric = self.model.metric
        if (split == "test" and not metric.test) or (group != FIRST_SEED and self.model.seed is None):
            return []
        mine, other = (metric.test, metric.name) if split == "test" else (metric.name, metric.test)
        collect = {
            "group": group, "folders": self._folders(folder), "places": self._places, "metric": mine,
            "outcomes": _outcomes_key(split), "output": self.model.output,
            "hidden": [other, *(_outcomes_key(one) for one in ("validation", "test"))],
        }  # fmt: skip
        return [
            Stage("collect", "predict", COLLECT_COMMAND, time_limit=300.0, files={COLLECT: json.dumps(collect)},
                  outputs=(PREDICTIONS,))
        ]  # fmt: skip

    def score(self, predictions: Path, split: Split, groups: Sequence[str]) -> Score:
        metric = self.model.metric
        if split == "test" and not metric.test:
            raise ScoreUnavailable(f"{self.files.source} names no metric.test, so nothing is sealed")
        if split == "confirm" and self.model.seed is None:
            raise ScoreUnavailable(f"{self.files.source} names no seed, so another training would say the same")
        name = metric.test if split == "test" else metric.name
        score = score_rows(predictions, name, self.direction, groups, self.files.name)
        if split == "test":
            return replace(score, metric=metric.name, details={}, notes=())
        return score

    def inspect(self, stage: Stage, workspace: Path) -> None:
        refuse_if_stopped(stage, workspace)

    def estimate(self) -> Estimate:
        notes = (f"the default configuration of {self.files.name} is trained first; how long it takes is unknown",)
        return Estimate(disk_mb=50.0, memory_mb=float(self.model.memory_mb or 64), seconds_per_loop=1.0, notes=notes)

    @property
    def _repeats(self) -> int:
        return self.model.seed.repeats if self.model.seed is not None else 1

    def _folders(self, folder: str) -> list[str]:
        """Where the trainings of a group run; the first of the first group in the workspace itself."""
        if folder == self.model_folder:
            return [".", *(f"repeated/{number}" for number in range(1, self._repeats))]
        return [f"{folder}/{number}" for number in range(self._repeats)]

    def _trial(self, candidate: Candidate, folder: str, seed: int, first: bool, number: int) -> Stage:
        limits, name = self.model, self.files.name
        parameters, refused = self._parameters(candidate)
        if limits.seed is not None:
            parameters[limits.seed.name] = seed
        trial = {
            "command": [INTERPRETERS[PurePosixPath(name).suffix], name, *limits.arguments],
            "refused": refused,
            "parameters": parameters,
            "passing": limits.passing,
            "names": self._names,
            "config": CONFIG,
            "folder": folder,
            "files": [name, *self.files.files],
            "metrics": [place for place in self._places if place.endswith(".jsonl")],
            "fresh": self._places,
            "outputs": [limits.output] if limits.output else [],
            "made": [] if limits.output else [NO_OUTPUT],
            "stopping": STOPPING if first else "",
            "memory": self._memory,
            "memory_mb": limits.memory_mb if self._memory else 0,
        }
        return Stage(
            f"train_{number}" if number else "train",
            "full",
            COMMAND,
            time_limit=limits.time_limit or self.context.timeouts.full,
            resources=Resources(memory_mb=limits.memory_mb, gpus=self.context.gpus),
            network=limits.network,
            mounts=tuple(Mount(key, path) for key, path in self.files.inputs.items()),
            files={**self.files.files, name: self.files.script, TRIAL: json.dumps(trial)},
            inputs=(CONFIG,),
            adapts=bool(self._memory),
        )

    def _parameters(self, candidate: Candidate) -> tuple[dict[str, Any], str]:
        """Of an experiment's config.json, and what the space does not allow in it; empty where all is well."""
        try:
            given = json.loads(candidate.files[CONFIG])
        except (KeyError, ValueError):
            given = None
        if not isinstance(given, dict):
            return {}, f"{CONFIG}: must be an object with the parameters of {self.files.name}"
        unknown = sorted(given.keys() - {p.name for p in self.space})
        values: dict[str, Any] = {}
        faults = [f"{name}: no such parameter" for name in unknown]
        for parameter in self.space:
            try:
                value = in_space(parameter, given.get(parameter.name, parameter.default))
            except ValueError as error:
                faults.append(f"{parameter.name}: {error}")
                continue
            # What may not be tuned stays what it is, whoever wrote something else.
            values[parameter.name] = value if parameter.tunable else parameter.default
        return values, f"{CONFIG}: {'; '.join(faults)}" if faults else ""

    @property
    def _names(self) -> dict[str, str]:
        """Parameter → its flag, key or variable."""
        uses = self.files.space.uses
        names = {p.name: uses[p.name].name if p.name in uses else "" for p in self.space}
        if self.model.seed is not None:
            names[self.model.seed.name] = self.model.seed.name
        return {name: self._named(name, given) for name, given in names.items()}

    def _named(self, name: str, given: str) -> str:
        if self.model.passing == "json":
            return given or name
        if self.model.passing == "environment":
            return given or name.upper().replace("-", "_").replace(".", "_")
        if given:
            return given if given.startswith("-") or given.endswith("=") else f"--{given}"
        as_written = f"--{name}"
        return as_written if as_written in self.files.script else f"--{name.replace('_', '-')}"

    @property
    def _memory(self) -> dict[str, list[float]]:
        uses = self.files.space.uses
        return {p.name: memory_bounds(p) for p in self.space if p.name in uses and uses[p.name].memory}


def _outcomes_key(split: str) -> str:
    return "test_outcomes" if split == "test" else "outcomes"


def _with_default(parameter: Parameter, text: str | None, protected: bool) -> Parameter:
    """With the default of `-o`, where one is given. Raises RequestError."""
    tunable = parameter.tunable and not protected
    if text is None:
        return replace(parameter, tunable=tunable)
    value = _value(parameter.name, text)
    try:
        return replace(parameter, default=in_space(parameter, value), tunable=tunable)
    except ValueError as error:
        raise RequestError(f"-o {parameter.name}={text}: {error}") from error


def _fixed(name: str, value: Any, text: str | None) -> Any:
    return value if text is None else _value(name, text)


def _value(name: str, text: str) -> Any:
    try:
        return parse_value(text, f"-o {name}={text}")
    except ToolkitError as error:
        raise RequestError(str(error)) from error
