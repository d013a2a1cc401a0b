"""Task `toolkit`: train.yaml of the toolkit on any benchmark of the `llm` scenario.

Data, overlap gate, questions and answers are those of that scenario; what is tuned is the training alone. A trial
whose training runs out of memory is tried again with fewer tokens in a forward pass, which changes no result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import ScoreUnavailable
from ftagent.core.statistics import repeated_score
from ftagent.core.types import Candidate, Direction, Estimate, Files, Parameter, Score, Split, Stage
from ftagent.evaluation.prediction import CONFIG as PREDICT_CONFIG
from ftagent.evaluation.prediction import QUESTIONS
from ftagent.evaluation.scoring import Graded, grade_predictions, mistakes, read_predictions, summarise
from ftagent_hpo.config import HpoConfig
from ftagent_hpo.task import FIRST_SEED, Described
from ftagent_hpo.toolkit_space import llm_options, train_space
from ftagent_hpo.trials import ADJUSTED, COMMAND, STOPPED, STOPPING, TRIAL, refuse_if_stopped
from ftagent_hpo.values import in_space
from ftagent_llm.configs import NOT_CHOSEN, WITHOUT_MEANING, read_yaml
from ftagent_llm.scenario import MODEL_FOLDER, WRITTEN, LlmScenario

TRAIN = "train.yaml"
DATA_SCRIPT = "prepare_data.py"
STAGE_CONFIG = "train_stage.yaml"
LEAST_PACK_TOKENS = 128


class ToolkitTask:
    """See the module; implements `Task`."""

    name = "toolkit"
    confirm_seeds = 1
    tests_seeds = False
    model_folder = MODEL_FOLDER

    def __init__(self, config: HpoConfig, context: ScenarioContext) -> None:
        """Raises RequestError, one line: an unknown benchmark, model, key or value."""
        self.options = llm_options(config)
        # Samples of a data script that asks language models would differ between trials.
        self.llm = LlmScenario(self.options, replace(context, llm=False))
        self.metric: str = self.llm.benchmark.metric
        self.direction: Direction = self.llm.benchmark.direction
        self.live_metric = "-loss" if self.direction == "maximize" else "loss"
        self.seed = context.seed
        defaults = {parameter.name: parameter.default for parameter in self.llm.space}
        templates = self.llm.render(defaults)
        self._script = templates[DATA_SCRIPT]
        self._template = read_yaml(templates[TRAIN])
        own = [parameter for parameter in self.llm.space if parameter.name in self._template]
        text = context.documents.get(context.space) if context.space else None
        self._set_elsewhere = {**NOT_CHOSEN, **dict.fromkeys(WITHOUT_MEANING), **self._fixed_keys()}
        found = train_space(config, own, self._set_elsewhere, context.space, text)
        self._always = {**self._template, **found.fixed}
        fixed = {name: value for name, value in self._always.items() if name not in {p.name for p in found.parameters}}
        # Where the rank is tuned and alpha is not, their ratio stays.
        self._ratio = None if "alpha" in {*found.fixed, *(p.name for p in found.parameters)} else self._alpha_ratio()
        self.space: tuple[Parameter, ...] = (
            *found.parameters,
            *(Parameter(k, "choice", v, choices=(v,), tunable=False) for k, v in fixed.items() if k != "alpha"),
        )

    def describe(self) -> Described:
        told, brief = self.llm, self.llm.brief()
        return Described(
            goal=f"Find the training configuration with which {told.model.name}, fine-tuned, has the best "
            f"{self.metric} on {told.benchmark.name} ({told.benchmark.title}).",
            data=brief.data,
            file_contract=f"{TRAIN}: keys of `python -m ftagent.toolkit.train`; the data script is the same for all.",
            details=brief.details,
            required_files=(TRAIN,),
            reserved_files=(*WRITTEN, DATA_SCRIPT, TRIAL, STOPPED, ADJUSTED),
        )

    def render(self, params: Mapping[str, Any]) -> Files:
        import yaml

        values = {p.name: params.get(p.name, p.default) for p in self.space}
        if self._ratio is not None:
            values["alpha"] = self._ratio * values["rank"]
        return {TRAIN: str(yaml.safe_dump(values, sort_keys=True))}

    def train(self, candidate: Candidate, group: str, seed: int, folder: str) -> list[Stage]:
        import yaml

        files, refused = self._files(candidate)
        stages = self.llm.stages(Candidate(candidate.loop or 0, files), "full")
        prepare, train = stages
        config = {**read_yaml(train.files[STAGE_CONFIG]), "seed": seed, "save_model_path": folder}
        trial = {
            "command": ["python", *train.command[1:]],
            "refused": refused,
            "passing": "overrides",
            "parameters": {"pack_tokens": config["pack_tokens"]},
            "memory": {"pack_tokens": [min(LEAST_PACK_TOKENS, config["pack_tokens"])]},
            "memory_mb": self.options.memory_mb,
            "metrics": [f"{folder}/metrics.jsonl"],
            "fresh": [],
            "stopping": STOPPING if group == FIRST_SEED else "",
        }
        train = replace(
            train, command=COMMAND, inputs=(*train.inputs, TRAIN), outputs=(), adapts=True,
            files={STAGE_CONFIG: str(yaml.safe_dump(config)), TRIAL: json.dumps(trial)},
        )  # fmt: skip
        prepare = replace(prepare, files={**prepare.files, DATA_SCRIPT: self._script})
        return [prepare, train] if group == FIRST_SEED else [train]

    def predict(self, candidate: Candidate, split: Split, group: str, seed: int, folder: str) -> list[Stage]:
        import yaml

        files, _ = self._files(candidate)
        found = []
        for stage in self.llm.stages(Candidate(candidate.loop or 0, files), "predict", split):
            config = read_yaml(stage.files[PREDICT_CONFIG])
            config |= {key: folder for key in ("model", "adapter") if config.get(key) == MODEL_FOLDER}
            rows = [json.loads(line) for line in stage.files[QUESTIONS].splitlines()]
            asked = "".join(
                json.dumps({**row, "id": f"{group}/{row['id']}"}, ensure_ascii=False) + "\n" for row in rows
            )
            told = {**stage.files, QUESTIONS: asked, PREDICT_CONFIG: str(yaml.safe_dump(config))}
            found.append(replace(stage, files=told, inputs=(folder,)))
        return found

    def score(self, predictions: Path, split: Split, groups: Sequence[str]) -> Score:
        items = self.llm.data.items("test" if split == "test" else "validation")
        found = read_predictions(predictions)
        scores, graded = [], list[Graded]()
        for group in groups:
            own = {key.removeprefix(f"{group}/"): out for key, out in found.items() if key.startswith(f"{group}/")}
            graded = grade_predictions(self.llm.benchmark, items, own)
            scores.append(summarise(self.llm.benchmark, graded, self.llm.context.pass_k))
        if not scores:
            raise ScoreUnavailable("nothing was measured")
        outcomes = {
            f"{group}/{item}": value
            for group, score in zip(groups, scores, strict=True)
            for item, value in score.outcomes.items()
        }
        first, steers = scores[0], split == "validation"
        details = {name: math.fsum(s.details[name] for s in scores) / len(scores) for name in first.details}
        score = repeated_score(first.metric, outcomes, direction=first.direction, details=details)
        score = replace(score, samples=first.samples * len(groups))
        return replace(score, errors=first.errors, mistakes=mistakes(graded)) if steers else score

    def inspect(self, stage: Stage, workspace: Path) -> None:
        """The overlap gate, and the rule of a training that was stopped."""
        if stage.name.startswith("prepare_data"):
            self.llm.inspect(replace(stage, name="prepare_data"), workspace)
        elif stage.command == COMMAND:
            refuse_if_stopped(stage, workspace)

    def estimate(self) -> Estimate:
        return self.llm.estimate()

    def _files(self, candidate: Candidate) -> tuple[Files, str]:
        """As the `llm` scenario has them, and what the space does not allow in train.yaml."""
        given = read_yaml(candidate.files.get(TRAIN, ""))
        faults, values = [], {}
        for parameter in self.space:
            try:
                value = in_space(parameter, given.get(parameter.name, parameter.default))
            except ValueError as error:
                faults.append(f"{TRAIN}: {parameter.name}: {error}")
                continue
            values[parameter.name] = value if parameter.tunable else parameter.default
        text = self.render(values)[TRAIN]
        return {DATA_SCRIPT: self._script, TRAIN: text}, "; ".join(faults)

    def _alpha_ratio(self) -> float | None:
        try:
            return float(self._template["alpha"]) / float(self._template["rank"])
        except (KeyError, ZeroDivisionError):
            return None

    def _fixed_keys(self) -> dict[str, Any]:
        """Keys of a training that the `llm` scenario sets."""
        (_, train) = self.llm.stages(Candidate(0, {DATA_SCRIPT: "", TRAIN: "method: lora\n"}), "full")
        return {key: value for key, value in read_yaml(train.files[STAGE_CONFIG]).items() if key != "method"}
