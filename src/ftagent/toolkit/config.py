"""The YAML files of `train` and `predict`: every key, its type and its bounds.

Nothing that changes a result is hidden in code: what is not a key here is not a choice. The defaults of a training
are in train_args/default.yaml, and presets.py says how presets, config.yaml and `-o` come on top.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.presets import Method, ObjectiveName, Stack, complete, stack, unknown_key
from ftagent.toolkit.yaml_files import Layer, read_layer

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]
Strategy = Literal["ddp", "fsdp", "deepspeed-zero2", "deepspeed-zero3"]
_DTYPE = "auto: bfloat16 on a GPU that has it, float32 elsewhere; float16 needs a GPU"
_DEVICE = "auto: cuda where torch sees a GPU, else cpu"


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Then(_Config):
    """What `ftagent train --then` does after the training; only the keys of the steps that are asked for matter."""

    benchmark: str = Field("", description="evaluate: what to score on")
    split: Literal["validation", "test"] = Field("validation", description="evaluate: items to score on")
    limit: int | None = Field(None, ge=1, description="evaluate: items at most")
    script: Path | None = Field(None, description="chat-script: a conversation whose user turns are played")
    answers: Path | None = Field(None, description="chat-script: file for the answers")
    merge_path: Path | None = Field(None, description="merge: folder for the merged model")
    merge_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="merge: of its weights; auto: as the base has them"
    )


class TrainConfig(_Config):
    """`ftagent train config.yaml`. Exactly one of `epochs` and `max_tokens` is given."""

    model_name: str = Field(description="preset: train_args/<model_name>.yaml; empty: the defaults alone")
    model_path: str = Field(min_length=1, description="folder with config, tokenizer and safetensors, or a hub id")
    dataset_path: str = Field(min_length=1, description="file or folder of conversations, or a data set of the hub")
    split: str = Field(min_length=1, description="part of the data, such as train or train[:100]")
    save_model_path: Path = Field(description="folder: adapter or weights, tokenizer, metrics.jsonl, checkpoints")

    map_function: str = Field(min_length=1, description="how conversations become text: auto, a family or a plug-in")
    thinking: Literal["auto", "split_turns", "keep_all", "last_only", "drop"] = Field(
        description="reasoning: each turn in the context it will have, all kept, last turn, none; auto: first or none"
    )

    objective: ObjectiveName = Field(description="supervised, from preferences, or from a verifier's rewards")
    method: Method = Field(description="all weights, or adapters; qlora: over a 4-bit base, needs a GPU")
    rank: int = Field(ge=1, description="of the adapters")
    alpha: float = Field(gt=0, description="adapters are scaled by alpha/rank")
    dropout: float = Field(ge=0, lt=1, description="of the adapters")
    rslora: bool = Field(description="scale adapters by alpha/sqrt(rank)")
    layers: int = Field(ge=0, description="adapters on the last N transformer layers; 0 is all")
    target_modules: Literal["all-linear"] | list[str] = Field(
        description="names of linear modules inside the layers, for example [q_proj, v_proj]"
    )

    learning_rate: float = Field(gt=0)
    schedule: Literal["linear", "cosine", "constant"] = Field(description="after the warm-up; to 0")
    warmup_ratio: float = Field(ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(ge=0)
    adam_beta1: float = Field(ge=0, lt=1)
    adam_beta2: float = Field(ge=0, lt=1)
    adam_epsilon: float = Field(gt=0)
    max_grad_norm: float = Field(ge=0, description="0 is no clipping")

    epochs: float | None = Field(gt=0, description="times that the data is seen")
    max_tokens: int | None = Field(
        ge=1, description="tokens seen, without padding; data is repeated or cut to meet it exactly"
    )
    batch_size: int = Field(ge=1, description="rows per optimiser step, times gradient_accumulation")
    gradient_accumulation: int = Field(ge=1)
    max_length: int = Field(ge=2, description="tokens per row; longer rows lose their end")
    pack_tokens: int = Field(
        ge=1, description="most tokens in one forward pass unless one row is longer; bounds memory only"
    )
    gradient_checkpointing: bool = Field(description="less memory, more time, the same result")
    strategy: Strategy = Field(
        description="of several processes: each has the whole model (ddp), or its part (fsdp, deepspeed-zero2, -zero3)"
    )
    deepspeed_config: Path | None = Field(description="JSON file over DeepSpeed's settings of the strategy")

    dtype: Dtype = Field(description=_DTYPE)
    device: Device = Field(description=_DEVICE)
    seed: int = Field(ge=0, lt=2**32)

    checkpoint_steps: int = Field(ge=0, description="optimiser steps between checkpoints; 0 is none")
    keep_checkpoints: int = Field(ge=0, description="newest kept, also when done, and the best; 0: none when done")
    log_steps: int = Field(ge=1, description="optimiser steps per line of metrics.jsonl")
    report_to: Literal["none", "tensorboard", "wandb", "mlflow", "trackio"] = Field(
        description="where curves are drawn while it runs"
    )

    validation_path: str | None = Field(min_length=1, description="held-out rows: a file, folder or data set")
    validation_split: str | None = Field(min_length=1, description="held-out rows: another split of dataset_path")
    validation_share: float = Field(ge=0, lt=1, description="held-out rows: a share of dataset_path, by the seed")
    validation_steps: int = Field(ge=1, description="optimiser steps between validations; one more at the end")
    early_stopping_patience: int = Field(ge=0, description="validations without improvement before the end; 0 is off")
    early_stopping_min_delta: float = Field(ge=0, description="least fall of the validation loss that counts")

    dpo_beta: float = Field(gt=0, description="how close to the reference model")
    dpo_loss: Literal["sigmoid", "hinge", "ipo"] = Field(description="of the difference of log-ratios")
    dpo_label_smoothing: float = Field(ge=0, lt=0.5, description="share of preferences taken to be wrong")

    verifier: str = Field(description="what judges replies of grpo: its name; the data has the answers")
    grpo_group_size: int = Field(ge=2, description="replies per problem")
    grpo_max_new_tokens: int = Field(ge=1, description="of a reply")
    grpo_temperature: float = Field(gt=0, description="of sampling replies")
    grpo_top_p: float = Field(gt=0, le=1, description="of sampling replies")
    grpo_kl: float = Field(ge=0, description="weight of the distance to the reference model; 0 needs no reference")
    grpo_clip: float = Field(gt=0, lt=1, description="bound of the probability ratio")
    grpo_updates: int = Field(ge=1, description="optimiser steps per set of replies")
    grpo_normalisation: Literal["grpo", "dapo", "dr_grpo"] = Field(
        description="tokens averaged per reply, over the step, or by grpo_max_new_tokens"
    )
    grpo_format: str = Field(description="regular expression that a whole reply should match; empty: none")
    grpo_format_weight: float = Field(ge=0, description="reward for a reply that matches grpo_format")
    grpo_batch_tokens: int = Field(ge=1, description="most tokens in flight while replies are sampled")
    grpo_scale_rewards: bool = Field(description="divide advantages by their group's standard deviation")

    then: Then = Field(
        description="what --then needs: benchmark, split, limit, script, answers, merge_path, merge_dtype"
    )

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, values: Any) -> Any:
        return complete(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if (self.epochs is None) == (self.max_tokens is None):
            raise ValueError("give exactly one of epochs and max_tokens")
        held_out = (self.validation_path, self.validation_split, self.validation_share)
        if sum(map(bool, held_out)) > 1:
            raise ValueError("give at most one of validation_path, validation_split and validation_share")
        if self.early_stopping_patience and not any(held_out):
            raise ValueError(
                "early_stopping_patience needs held-out rows: validation_path, validation_split or validation_share"
            )
        if self.objective == "grpo":
            self._refuse_grpo()
        if self.strategy != "ddp":
            self._refuse_parts()
        if self.deepspeed_config and not self.strategy.startswith("deepspeed-"):
            raise ValueError("deepspeed_config needs strategy deepspeed-zero2 or deepspeed-zero3")
        return self

    def _refuse_parts(self) -> None:
        by = f"strategy {self.strategy}"
        if self.objective != "sft":
            raise ValueError(f"{by} trains objective sft alone; objective {self.objective} takes strategy ddp")
        if self.method == "qlora":
            raise ValueError(f"{by} does not split 4-bit weights: give method lora, or strategy ddp")
        if self.dtype == "float16":
            raise ValueError(f"{by} computes in float32 or bfloat16, not in float16")

    def _refuse_grpo(self) -> None:
        if not self.verifier:
            raise ValueError("objective grpo needs a verifier")
        if self.max_tokens is not None:
            raise ValueError("objective grpo samples its own tokens: give epochs, not max_tokens")
        if self.grpo_kl and self.method == "full":
            raise ValueError(
                "grpo_kl needs the untouched model, which method full changes: give grpo_kl: 0, or method lora"
            )
        if self.checkpoint_steps % self.grpo_updates:
            raise ValueError(
                f"checkpoint_steps must be a multiple of grpo_updates, {self.grpo_updates}: "
                "replies are not kept in checkpoints"
            )
        if self.validates and self.validation_steps % self.grpo_updates:
            raise ValueError(
                f"validation_steps must be a multiple of grpo_updates, {self.grpo_updates}: "
                "the best step is a checkpoint, and replies are not kept in checkpoints"
            )
        try:
            re.compile(self.grpo_format)
        except re.error as error:
            raise ValueError(f"grpo_format is not a regular expression: {error}") from error

    @property
    def validates(self) -> bool:
        """Whether there are held-out rows."""
        return bool(self.validation_path or self.validation_split or self.validation_share)


class PredictConfig(_Config):
    """`python -m ftagent.toolkit.predict predict.yaml`."""

    dtype: Dtype = Field("auto", description=_DTYPE)
    device: Device = Field("auto", description=_DEVICE)
    seed: int = Field(0, ge=0, lt=2**32)
    model: str = Field(min_length=1, description="folder with config, tokenizer and safetensors, or a hub id")
    adapter: str | None = Field(None, description="folder of a LoRA adapter (safetensors)")
    questions: Path = Field(description='JSONL, one {"id", "messages"} a line')
    output: Path = Field(description='JSONL, one {"id", "outputs": [text, ...]} a line, in the order of questions')

    max_new_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1)
    samples: int = Field(1, ge=1, description="outputs per question; more than 1 needs a temperature")
    batch_size: int = Field(128, ge=1, description="most sequences in flight")
    batch_tokens: int = Field(32768, ge=1, description="most tokens in flight, prompts and new ones")

    @model_validator(mode="after")
    def _samples_differ(self) -> PredictConfig:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples above 1 need a temperature above 0")
        return self


ConfigType = TypeVar("ConfigType", TrainConfig, PredictConfig)


def load_config(path: Path, kind: type[ConfigType], overrides: Sequence[str] = ()) -> ConfigType:
    """Read and validate a YAML file; a training's over its preset and the defaults, under `overrides` (`key=value`).

    Raises ToolkitError: one line with file, line, key and what would be right.
    """
    main = read_layer(path)
    if kind is TrainConfig:
        return _validate(stack(main, overrides, path.parent), kind)
    return _validate(Stack(dict(main.values), [main], main), kind)


def validate_config(values: dict[Any, Any], kind: type[ConfigType], source: str) -> ConfigType:
    """`values` as a config. Raises ToolkitError; unknown keys come with the nearest valid one."""
    main = Layer(source, {str(key): value for key, value in values.items()})
    return _validate(stack(main) if kind is TrainConfig else Stack(dict(main.values), [main], main), kind)


def _validate(given: Stack, kind: type[ConfigType]) -> ConfigType:
    unknown = [
        f"{layer.place(key)}: {key}: {unknown_key(key, kind.model_fields)}"
        for layer in given.layers for key in layer.values if key not in kind.model_fields
    ]  # fmt: skip
    if unknown:
        raise ToolkitError("; ".join(unknown))
    try:
        return kind.model_validate(given.values)
    except ValidationError as error:
        raise ToolkitError("; ".join(_problem(item, given) for item in error.errors())) from error


def _problem(item: Any, given: Stack) -> str:
    # Parts such as literal['all-linear'] name a branch of a union, not a key.
    path = [str(part) for part in item["loc"] if not set("[(") & set(str(part))]
    place = given.main.source if item["type"] == "missing" else given.place(*path)
    key = ".".join(path)
    if item["type"] == "missing":
        return f"{place}: {key}: is missing"
    if item["type"] == "extra_forbidden" and path[0] == "then":
        return f"{place}: {key}: {unknown_key(path[-1], Then.model_fields)}"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{place}: {key}: {message}, not {item['input']!r}" if key else f"{place}: {message}"
