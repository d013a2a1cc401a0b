"""The YAML files of `train` and `predict`: every key, its type, its default and its bounds.

Nothing that changes a result is hidden in code: what is not a key here is not a choice.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ftagent.toolkit.errors import ToolkitError

Dtype = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    dtype: Dtype = Field("auto", description="auto: bfloat16 on a GPU that has it, float32 elsewhere")
    device: Device = Field("auto", description="auto: cuda where torch sees a GPU, else cpu")
    seed: int = Field(0, ge=0, lt=2**32)


class TrainConfig(_Config):
    """`python -m ftagent.toolkit.train train.yaml`. Exactly one of `epochs` and `max_tokens` is given."""

    model_path: str = Field(min_length=1, description="folder with config, tokenizer and safetensors, or a hub id")
    dataset_path: Path = Field(description='JSONL, one {"messages": [{"role", "content"}, ...]} a line')
    save_model_path: Path = Field(description="folder: adapter or weights, tokenizer, metrics.jsonl, checkpoints")

    map_function: str = Field("auto", description="auto, qwen, gpt_oss, deepseek, gemma, chatml or that of a plug-in")
    thinking: Literal["auto", "split_turns", "keep_all", "last_only", "drop"] = Field(
        "auto", description="what becomes of reasoning: see docs/guides/map-functions.md"
    )

    method: Literal["lora", "full"] = "lora"
    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1, description="of the adapters")
    layers: int = Field(0, ge=0, description="adapters on the last N transformer layers; 0 is all")
    target_modules: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="names of linear modules inside the layers, for example [q_proj, v_proj]"
    )

    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="after the warm-up; to 0")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(0.0, ge=0)
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    max_grad_norm: float = Field(1.0, ge=0, description="0 is no clipping")

    epochs: float | None = Field(None, gt=0)
    max_tokens: int | None = Field(
        None, ge=1, description="tokens seen, without padding; data is repeated or cut to meet it exactly"
    )
    batch_size: int = Field(8, ge=1, description="rows per optimiser step, times gradient_accumulation")
    gradient_accumulation: int = Field(1, ge=1)
    max_length: int = Field(1024, ge=2, description="tokens per row; longer rows lose their end")
    pack_tokens: int = Field(
        2048, ge=1, description="most tokens in one forward pass unless one row is longer; bounds memory only"
    )

    checkpoint_steps: int = Field(0, ge=0, description="optimiser steps between checkpoints; 0 is none")
    log_steps: int = Field(1, ge=1, description="optimiser steps per line of metrics.jsonl")

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.epochs is None) == (self.max_tokens is None):
            raise ValueError("give exactly one of epochs and max_tokens")
        return self


class PredictConfig(_Config):
    """`python -m ftagent.toolkit.predict predict.yaml`."""

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


def load_config(path: Path, kind: type[ConfigType]) -> ConfigType:
    """Read and validate a YAML file. Raises ToolkitError: one line with file, key and what would be right."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ToolkitError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ToolkitError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ToolkitError(f"{path}: must be a mapping of keys to values, not {type(values).__name__}")
    return validate_config(values, kind, str(path))


def validate_config(values: dict[Any, Any], kind: type[ConfigType], source: str) -> ConfigType:
    """`values` as a config. Raises ToolkitError; unknown keys come with the nearest valid one."""
    unknown = [str(key) for key in values if key not in kind.model_fields]
    if unknown:
        raise ToolkitError(f"{source}: " + "; ".join(_unknown_key(key, kind) for key in unknown))
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ToolkitError(f"{source}: " + "; ".join(_problem(item) for item in error.errors())) from error


def _unknown_key(key: str, kind: type[BaseModel]) -> str:
    near = difflib.get_close_matches(key, list(kind.model_fields), n=1, cutoff=0.5)
    if near:
        return f"unknown key {key!r}; did you mean {near[0]!r}?"
    return f"unknown key {key!r}; valid keys: {', '.join(sorted(kind.model_fields))}"


def _problem(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    given = "" if not place or item["type"] == "missing" else f", not {item['input']!r}"
    return f"{place}: {message}{given}" if place else message
