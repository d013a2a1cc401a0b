"""The `llm` scenario: a language model made better at a benchmark by fine-tuning.

Stages: `prepare_data` (stdlib, fast) → `train` (toolkit) → `predict` (toolkit, questions only) → score,
here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import RequestError
from ftagent.core.types import (
    Brief,
    Candidate,
    Estimate,
    Files,
    Mount,
    Parameter,
    Purpose,
    Resources,
    Score,
    Split,
    Stage,
)
from ftagent.evaluation.prediction import (
    CONFIG,
    PREDICT_COMMAND,
    PREDICTIONS,
    QUESTIONS,
    TOOLKIT_VARIABLES,
    Decoding,
    prediction_files,
)
from ftagent.evaluation.registry import resolve_benchmark
from ftagent.evaluation.scoring import mistakes, score_file
from ftagent_llm.broker_help import broker_help
from ftagent_llm.configs import NOT_CHOSEN, WITHOUT_MEANING, layer_count, merged, read_yaml
from ftagent_llm.data import TrainingData
from ftagent_llm.details import describe_details
from ftagent_llm.estimates import estimate_run
from ftagent_llm.models import ResolvedModel, resolve_model
from ftagent_llm.options import LlmOptions
from ftagent_llm.space import (
    ARITHMETIC_FORMATS,
    SHORT_FORMATS,
    SOLUTION_FORMATS,
    TEMPLATES,
    build_space,
    read_prompts,
    render,
)

MODEL_FOLDER = "model"
DEBUG_FOLDER = "model_debug"
WRITTEN = (
    "train.jsonl",
    "train_stage.yaml",
    MODEL_FOLDER,
    DEBUG_FOLDER,
    QUESTIONS,
    CONFIG,
    PREDICTIONS,
    "metrics.jsonl",
)
"""What stages write: a file of an experiment in its place could stand in for checked rows or for a result."""
FILE_CONTRACT = """prepare_data.py: stdlib Python; reads raw rows {"id", "prompt", "answer", "solution"} as
JSONL from the file named by FTAGENT_INPUT_TRAIN_ROWS, writes train.jsonl of {"messages": [{"role",
"content"}, ...]}; `--limit N` makes it write at most N rows. train.yaml: keys of `python -m
ftagent.toolkit.train` but for model_path, dataset_path, save_model_path, epochs, max_tokens, seed and
others that are set for every experiment alike."""


class LlmScenario:
    """See the module."""

    name = "llm"

    def __init__(self, options: LlmOptions, context: ScenarioContext) -> None:
        """Resolves benchmark and base model. Raises RequestError, one line, for what is unknown or
        missing."""
        self.options = options
        self.context = context
        self.asks_models = context.llm and options.llm_data == "auto"
        """Whether the data script may ask language models; `broker_help` says how."""
        self.benchmark = resolve_benchmark(context.benchmark, context.hub, context.files_path)
        if not context.base_model:
            raise RequestError(
                "no base model given (--base-model); for example smollm2-135m; `ftagent models` lists more"
            )
        self.decoding = decoding_of(options, context, self.benchmark.max_new_tokens)
        self.data = TrainingData(self.benchmark, context, options.train_rows)
        self.model: ResolvedModel = resolve_model(context.base_model, context.files_path, context.hub)

    @cached_property
    def space(self) -> tuple[Parameter, ...]:
        """Of this model and these rows."""
        formats: Sequence[str] = SOLUTION_FORMATS if self.data.solved else SHORT_FORMATS
        if self.data.arithmetic:
            formats = ARITHMETIC_FORMATS
        return build_space(self.options, len(self.data.rows), formats, layer_count(self.model.path))

    def brief(self) -> Brief:
        counts = {split: len(self.data.items(split)) for split in ("validation", "confirm", "test")}
        return Brief(
            scenario=self.name,
            goal=f"Fine-tune {self.model.name} so that its {self.benchmark.metric} on {self.benchmark.name} "
            f"({self.benchmark.title}) rises. {self.context.benchmark_description or self.context.user_target}".strip(),
            data=f"{len(self.data.rows)} rows to train on ({', '.join(self.context.datasets) or self.benchmark.name}), "
            f"{self.options.train_tokens} training tokens per experiment; measured on {counts['validation']} "
            f"validation, {counts['confirm']} confirm and {counts['test']} sealed test items.",
            file_contract=FILE_CONTRACT,
            hardware=self.context.hardware.describe(),
            metric=self.benchmark.metric,
            direction=self.benchmark.direction,
            space=self.space,
            render=self.render,
            model_folder=MODEL_FOLDER,
            details=self._details,
            required_files=TEMPLATES,
            reserved_files=WRITTEN,
            prompts=read_prompts(),
        )

    @cached_property
    def _details(self) -> str:
        fixed = self._fixed(debug=False).keys() | WITHOUT_MEANING
        models = broker_help() if self.asks_models else ""
        return describe_details(
            self.benchmark, self.data.by_dataset, self.decoding, self.options, self.context.timeouts, fixed, models
        )

    def render(self, params: Mapping[str, Any]) -> Files:
        """The files of an experiment from the templates."""
        return render(params, self.space, self.options, self.context.seed)

    def estimate(self) -> Estimate:
        items = len(self.data.items("validation"))
        return estimate_run(self.model.parameters, items, self.decoding, self.options, self.context.hardware)

    def baseline(self) -> Candidate:
        return Candidate(loop=None, files={})

    def stages(self, candidate: Candidate, purpose: Purpose, split: Split | None = None) -> list[Stage]:
        if purpose == "predict":
            return self._predict(candidate, split or "validation")
        if candidate.loop is None:
            return []
        debug = purpose == "debug"
        stages = [self._prepare(purpose)]
        if not debug or self._rehearses(candidate):
            stages.append(self._train(candidate, purpose))
        return stages

    def inspect(self, stage: Stage, workspace: Path) -> None:
        """The overlap gate: train.jsonl holds no benchmark item. Raises StageRefused."""
        if stage.name == "prepare_data":
            self.data.check(workspace / "train.jsonl")

    async def score(self, predictions: Path, split: Split) -> Score:
        """Errors and mistakes are kept for validation only: they steer, and the other splits must not."""
        score, graded = await asyncio.to_thread(
            score_file, self.benchmark, self.data.items(split), predictions, self.context.pass_k
        )
        if split == "validation":
            return replace(score, mistakes=mistakes(graded))
        return replace(score, errors={})

    def _prepare(self, purpose: Purpose) -> Stage:
        debug = purpose == "debug"
        limits = self.context.timeouts
        return Stage(
            "prepare_data",
            purpose,
            ("python", "prepare_data.py", *(("--limit", str(self.options.debug_rows)) if debug else ())),
            time_limit=limits.debug_data_processing if debug else limits.data_processing,
            resources=Resources(memory_mb=self.options.memory_mb),
            llm=self.asks_models,
            mounts=(Mount("TRAIN_ROWS", str(self.data.file)),),
            inputs=("prepare_data.py",),
            outputs=("train.jsonl",),
            reusable=True,
        )

    def _train(self, candidate: Candidate, purpose: Purpose) -> Stage:
        debug = purpose == "debug"
        fixed = self._fixed(debug)
        limits = self.context.timeouts
        return Stage(
            "train",
            purpose,
            ("python", "-P", "-m", "ftagent.toolkit.train", "train_stage.yaml"),
            time_limit=limits.micro_batch if debug else limits.full,
            resources=Resources(memory_mb=self.options.memory_mb, gpus=self.context.gpus),
            mounts=(Mount("MODEL", str(self.model.path)),),
            variables=TOOLKIT_VARIABLES,
            files={"train_stage.yaml": merged(candidate.files.get("train.yaml", ""), fixed)},
            inputs=("train.jsonl",),
            outputs=(fixed["save_model_path"],),
            reusable=debug,
        )

    def _fixed(self, debug: bool) -> dict[str, Any]:
        """Keys of a training that no experiment chooses."""
        return {
            "model_path": str(self.model.path),
            "dataset_path": "train.jsonl",
            "save_model_path": DEBUG_FOLDER if debug else MODEL_FOLDER,
            "max_tokens": self.options.debug_tokens if debug else self.options.train_tokens,
            "seed": self.context.seed,
            "dtype": self.options.dtype,
            "device": self.options.device,
            "checkpoint_steps": 0 if debug else self.options.checkpoint_steps,
            "pack_tokens": self.options.pack_tokens,
            **NOT_CHOSEN,
        }

    def _predict(self, candidate: Candidate, split: Split) -> list[Stage]:
        items = self.data.items(split)
        if not items:
            return []
        model, adapter = str(self.model.path), None
        if candidate.loop is not None:
            full = read_yaml(candidate.files.get("train.yaml", "")).get("method") == "full"
            model, adapter = (MODEL_FOLDER, None) if full else (model, MODEL_FOLDER)
        files = prediction_files(self.benchmark, items, self.decoding, model, adapter)
        return [
            Stage(
                "predict",
                "predict",
                PREDICT_COMMAND,
                time_limit=self.context.timeouts.benchmark,
                resources=Resources(memory_mb=self.options.memory_mb, gpus=self.context.gpus),
                mounts=(Mount("MODEL", str(self.model.path)),),
                variables=TOOLKIT_VARIABLES,
                files=files,
                inputs=() if candidate.loop is None else (MODEL_FOLDER,),
                outputs=(PREDICTIONS,),
            )
        ]

    def _rehearses(self, candidate: Candidate) -> bool:
        """Files that a template rendered are known to work: a rehearsal would only pay the imports once
        more."""
        if self.options.rehearse != "auto":
            return self.options.rehearse == "always"
        return dict(candidate.files) != dict(self.render(candidate.params))


def decoding_of(options: LlmOptions, context: ScenarioContext, max_new_tokens: int) -> Decoding:
    """Decoding of baseline and candidates alike. Raises RequestError for several samples without a
    temperature."""
    temperature = options.temperature
    if temperature < 0:
        temperature = 0.7 if context.samples > 1 else 0.0
    if context.samples > 1 and temperature == 0:
        raise RequestError(f"{context.samples} samples per item need a temperature above 0 (-o temperature)")
    return Decoding(
        max_new_tokens=options.max_new_tokens or max_new_tokens,
        temperature=temperature,
        top_p=options.top_p,
        samples=context.samples,
        seed=context.seed,
        dtype=options.dtype,
        device=options.device,
        batch_size=options.predict_batch_size,
        batch_tokens=options.predict_batch_tokens,
    )
