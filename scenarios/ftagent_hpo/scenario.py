"""The `hpo` scenario: a better configuration for a training.

The baseline is the default configuration, trained and scored before the first loop. Which training that is, a task
says (task.py): the built-in `stsb`, any script with a space.yaml, or the toolkit's train.yaml on a benchmark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import RequestError, ScoreUnavailable
from ftagent.core.types import Brief, Candidate, Estimate, Files, Purpose, Score, Split, Stage
from ftagent_hpo.config import HpoConfig, read_config, unknown
from ftagent_hpo.options import HpoOptions, config_source
from ftagent_hpo.task import FIRST_SEED, PREDICTIONS, Task

CONFIRM_FOLDER = "confirm"
KEEP = '''"""Keeps the predictions of one repeated training; with others given, puts all of them together."""
import json, pathlib, shutil, sys

group, suffix, *others = sys.argv[1:]
kept = pathlib.Path("confirm")
kept.mkdir(exist_ok=True)
rows = [line for line in open("predictions.jsonl") if json.loads(line)["id"].startswith(f"{group}/")]
(kept / f"{group}{suffix}.jsonl").write_text("".join(rows))
if not suffix:
    shutil.rmtree(kept / group, ignore_errors=True)
if others:
    text = "".join((kept / f"{name}.jsonl").read_text() for name in others)
    pathlib.Path("predictions.jsonl").write_text(text)
'''
GATHER = '''"""Adds what repeated trainings say of the sealed test; once, however often it runs."""
import json, pathlib

target = pathlib.Path("predictions.jsonl")
paths = [target, *sorted(pathlib.Path("confirm").glob("*_test.jsonl"))]
rows = {json.loads(line)["id"]: line for path in paths for line in path.read_text().splitlines()}
target.write_text("".join(f"{line}\\n" for line in rows.values()))
'''


class HpoScenario:
    """See the module."""

    name = "hpo"

    def __init__(self, options: HpoOptions, context: ScenarioContext) -> None:
        """Raises RequestError, one line, for what is unknown, missing or out of its range."""
        self.context = context
        source, text = config_source(options, context.documents)
        self.config = read_config(text, source, options.given)
        self.settings = self.config.settings
        self.task = choose_task(self.config, context)
        self._tunable = {p.name: p.default for p in self.task.space if p.tunable}
        self._check()

    def brief(self) -> Brief:
        told = self.task.describe()
        return Brief(
            scenario=self.name,
            goal=" ".join(filter(None, [told.goal, self.context.user_target])),
            data=told.data,
            file_contract=told.file_contract,
            hardware=self.context.hardware.describe(),
            metric=self.task.metric,
            direction=self.task.direction,
            space=self.task.space,
            render=self.render,
            model_folder=self.task.model_folder,
            baseline_params=self._tunable,
            details=told.details,
            required_files=told.required_files,
            reserved_files=(*told.reserved_files, self.task.model_folder, PREDICTIONS, CONFIRM_FOLDER),
            plan=self.settings.plan(self.task.live_metric),
        )

    def render(self, params: Mapping[str, Any]) -> Files:
        """The files of an experiment."""
        return self.task.render(params)

    def estimate(self) -> Estimate:
        return self.task.estimate()

    def baseline(self) -> Candidate:
        return Candidate(loop=None, files=self.render(self._tunable), params=self._tunable)

    def stages(self, candidate: Candidate, purpose: Purpose, split: Split | None = None) -> list[Stage]:
        """No rehearsal: a trial is a configuration, its script is the same for all."""
        task = self.task
        if purpose == "debug":
            return []
        if purpose == "full":
            return task.train(candidate, FIRST_SEED, task.seed, task.model_folder)
        if split == "confirm":
            return self._confirm(candidate)
        stages = task.predict(candidate, split or "validation", FIRST_SEED, task.seed, task.model_folder)
        if split == "test" and stages and task.tests_seeds:
            stages.append(Stage("gather", "predict", ("python", "gather.py"), time_limit=60.0,
                                files={"gather.py": GATHER}, outputs=(PREDICTIONS,)))  # fmt: skip
        return stages

    def inspect(self, stage: Stage, workspace: Path) -> None:
        self.task.inspect(stage, workspace)

    async def score(self, predictions: Path, split: Split) -> Score:
        """Items of `confirm` are those of `validation`, predicted by trainings with other seeds."""
        groups = self._groups if split == "confirm" else [FIRST_SEED]
        if not groups:
            raise ScoreUnavailable("CONFIRM_SEEDS is 0: nothing is trained again")
        if split == "test" and self.task.tests_seeds:
            groups += _groups_in(predictions, self._groups)
        return await asyncio.to_thread(self.task.score, predictions, split, groups)

    @property
    def _groups(self) -> list[str]:
        given = self.settings.confirm_seeds
        return [f"seed{n}" for n in range(1, (self.task.confirm_seeds if given == "auto" else given) + 1)]

    def _confirm(self, candidate: Candidate) -> list[Stage]:
        stages: list[Stage] = []
        for number, group in enumerate(self._groups, 1):
            seed, folder = self.task.seed + number, f"{CONFIRM_FOLDER}/{group}"
            trained = self.task.train(candidate, group, seed, folder)
            predicted = self.task.predict(candidate, "validation", group, seed, folder)
            if not trained + predicted:
                return []  # the task has no other seeds
            stages += _named(trained, group)
            if self.task.tests_seeds:
                tested = self.task.predict(candidate, "test", group, seed, folder)
                stages += _named(tested, f"test_{group}") + ([_keep(group, "_test")] if tested else [])
            stages += _named(predicted, group)
            stages.append(_keep(group, "", self._groups if group == self._groups[-1] else []))
        return stages

    def _check(self) -> None:
        """Raises RequestError for a search that cannot be made."""
        settings, config = self.settings, self.config
        if not self._tunable:
            raise RequestError(f"{config.layer.source}: no key may be tuned: name at least one under TUNABLE_KEYS")
        for name in settings.priority_keys:
            if name not in self._tunable:
                raise RequestError(f"{config.place('PRIORITY_KEYS', 'AGENT_SETTINGS')}: {name}: "
                                   f"{unknown(name, self._tunable)}")  # fmt: skip
        try:
            settings.plan(self.task.live_metric)
        except ValueError as error:
            raise RequestError(f"{config.place('EARLY_STOPPING', 'AGENT_SETTINGS')}: {error}") from error


def _named(stages: Sequence[Stage], ending: str) -> list[Stage]:
    return [replace(stage, name=f"{stage.name}_{ending}", purpose="predict") for stage in stages]


def _keep(group: str, suffix: str, others: Sequence[str] = ()) -> Stage:
    return Stage(f"keep{suffix}_{group}", "predict", ("python", "keep.py", group, suffix, *others), time_limit=60.0,
                 files={"keep.py": KEEP}, outputs=(f"{CONFIRM_FOLDER}/{group}{suffix}.jsonl",))  # fmt: skip


def _groups_in(predictions: Path, groups: Sequence[str]) -> list[str]:
    """Those of `groups` that have a row."""
    try:
        text = predictions.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [group for group in groups if f'"{group}/' in text]


def choose_task(config: HpoConfig, context: ScenarioContext) -> Task:
    """What the request names: a script, a benchmark, or else the built-in task. Raises RequestError."""
    if context.script:
        from ftagent_hpo.script import ScriptTask

        return ScriptTask(config, context)
    if context.benchmark.lower() not in ("", "stsb"):
        from ftagent_hpo.toolkit_task import ToolkitTask

        return ToolkitTask(config, context)
    if context.space:
        raise RequestError("--space: belongs to --script SCRIPT or to --benchmark NAME, and neither is given")
    from ftagent_hpo.stsb_task import StsbTask

    return StsbTask(config, context)
