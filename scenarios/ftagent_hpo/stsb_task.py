"""The built-in task: fine-tune a model of sentences on STS-B, scored by Spearman's rank correlation on dev.

The script of templates/ trains and predicts dev in one process: its imports cost as much as a tenth of a training.
Gold values of dev and test never enter a workspace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ftagent.core.context import ScenarioContext
from ftagent.core.types import Candidate, Direction, Estimate, Files, Mount, Resources, Score, Split, Stage
from ftagent.evaluation.prediction import TOOLKIT_VARIABLES
from ftagent_hpo.config import HpoConfig
from ftagent_hpo.stsb_base import resolve_base
from ftagent_hpo.stsb_config import build_space, clamped, read_defaults
from ftagent_hpo.stsb_data import StsbData, as_lines
from ftagent_hpo.stsb_estimate import estimate_stsb
from ftagent_hpo.stsb_score import METRIC, score_predictions
from ftagent_hpo.task import FIRST_SEED, PREDICTIONS, Described
from ftagent_hpo.trials import COMMAND, STOPPED, STOPPING, TRIAL, refuse_if_stopped

CONFIG = "config.json"
JOB = "job.json"
PAIRS = "pairs.jsonl"
METRICS = "metrics.jsonl"
SCRIPT = "train_stsb.py"
SCRIPTS = (SCRIPT, "sentence_model.py")
WRITTEN = (*SCRIPTS, JOB, PAIRS, METRICS, "memory.json", TRIAL, STOPPED)
FILE_CONTRACT = """config.json: an object with every key of DEFAULT_CONFIG. Keys that may not be tuned keep their
values, numbers outside their range are brought back into it. No other file: the script is the same for all."""


class StsbTask:
    """See the module."""

    name = "stsb"
    confirm_seeds = 1
    tests_seeds = False
    metric = METRIC
    direction: Direction = "maximize"
    live_metric = "spearman"

    def __init__(self, config: HpoConfig, context: ScenarioContext) -> None:
        """Raises RequestError, one line, for a wrong key, a missing model, data that is not there."""
        self.context = context
        self._watched = config.settings.early_stopping
        self.defaults = read_defaults(config, context.base_model)
        self.space = build_space(config, self.defaults)
        self.seed = self.defaults.seed
        self.model_folder = self.defaults.output_dir_root
        self.data = StsbData(context, self.defaults.stsb_train_split, self.defaults.stsb_path)
        self.model = resolve_base(self.defaults.base_model, context.files_path, context.hub)
        if not self.defaults.eval_steps:
            self.live_metric = ""

    def describe(self) -> Described:
        training, held_out = self.data.training
        counts = len(self.data.items("validation")), len(self.data.items("test"))
        return Described(
            goal=f"Find the configuration with which {self.model.name}, fine-tuned on STS-B, predicts similarities "
            "that agree best with people's: Spearman's rank correlation.",
            data=f"{len(training)} training pairs ({self.defaults.stsb_train_split}), {len(held_out)} others to look "
            f"at while training; measured on {counts[0]} dev and {counts[1]} sealed test pairs.",
            file_contract=FILE_CONTRACT,
            details="AdamW, linear warm-up and decay, gradients clipped at 1. LOSS cosine: squared error of the cosine "
            "similarity; cosent: pairs of pairs in the wrong order. metrics.jsonl has loss and, every EVAL_STEPS, the "
            "spearman of the held-out pairs.",
            required_files=(CONFIG,),
            reserved_files=WRITTEN,
        )

    def render(self, params: Mapping[str, Any]) -> Files:
        return {CONFIG: json.dumps(clamped(self.space, params), indent=2) + "\n"}

    def train(self, candidate: Candidate, group: str, seed: int, folder: str) -> list[Stage]:
        training, held_out = self.data.files()
        metrics = METRICS if group == FIRST_SEED else f"metrics_{group}.jsonl"
        job = {"mode": "train", "seed": seed, "metrics": metrics}
        mounts = (Mount("MODEL", str(self.model.path)), Mount("TRAIN_ROWS", str(training)),
                  Mount("HELD_OUT", str(held_out)))  # fmt: skip
        files = {CONFIG: self._config(candidate)}
        stage = self._stage("train", candidate, "validation", group, folder, job, mounts, files)
        watched = self._watched and group == FIRST_SEED and candidate.loop is not None
        return [_watch(stage, metrics) if watched else stage]

    def predict(self, candidate: Candidate, split: Split, group: str, seed: int, folder: str) -> list[Stage]:
        if split == "validation":
            return []
        return [self._stage("predict", candidate, split, group, folder, {"mode": "predict"}, (), {})]

    def score(self, predictions: Path, split: Split, groups: Sequence[str]) -> Score:
        items = self.data.items("test" if split == "test" else "validation")
        return score_predictions(predictions, items, groups)

    def inspect(self, stage: Stage, workspace: Path) -> None:
        if TRIAL in stage.files:
            refuse_if_stopped(stage, workspace)

    def estimate(self) -> Estimate:
        training, held_out = self.data.training
        return estimate_stsb(self.model, self.defaults, training, held_out, self.data.items("validation"),
                             self.context.hardware)  # fmt: skip

    def _stage(
        self, name: str, candidate: Candidate, split: Split, group: str, folder: str, job: Mapping[str, Any],
        mounts: tuple[Mount, ...], files: Mapping[str, str],
    ) -> Stage:  # fmt: skip
        training = name == "train"
        limits, memory_mb = self.context.timeouts, self.defaults.memory_mb
        batch = json.loads(self._config(candidate))["TRAIN_BATCH_SIZE"]
        told = {"group": group, "folder": folder, "pairs": PAIRS, "memory_mb": memory_mb, "batch_size": batch, **job}
        items = self.data.items("test" if split == "test" else "validation")
        pairs = as_lines({"id": p.id, "sentence1": p.sentence1, "sentence2": p.sentence2} for p in items)
        return Stage(
            name,
            "full" if training else "predict",
            ("python", "-P", SCRIPT, JOB),
            time_limit=limits.full if training else limits.benchmark,
            resources=Resources(memory_mb=memory_mb, gpus=self.context.gpus),
            mounts=mounts,
            variables=TOOLKIT_VARIABLES,
            files={**files, **self._scripts, JOB: json.dumps(told) + "\n", PAIRS: pairs},
            inputs=(CONFIG,) if training else (CONFIG, folder),
            outputs=(folder, PREDICTIONS) if training else (PREDICTIONS,),
            adapts=training,
        )

    def _config(self, candidate: Candidate) -> str:
        """What is trained with: an experiment's file without what it may not decide."""
        try:
            values = json.loads(candidate.files.get(CONFIG, "{}"))
        except ValueError:
            values = {}
        params = values if isinstance(values, dict) else {}
        return self.render(params)[CONFIG]

    @cached_property
    def _scripts(self) -> Files:
        folder = Path(__file__).parent / "templates"
        return {name: (folder / f"{name}.template").read_text(encoding="utf-8") for name in SCRIPTS}


def _watch(stage: Stage, metrics: str) -> Stage:
    """The same command, ended early where the agent's rules say that it cannot win."""
    trial = {"command": list(stage.command), "metrics": [metrics], "fresh": [], "outputs": list(stage.outputs),
             "stopping": STOPPING}  # fmt: skip
    return replace(stage, command=COMMAND, files={**stage.files, TRIAL: json.dumps(trial) + "\n"}, outputs=())
