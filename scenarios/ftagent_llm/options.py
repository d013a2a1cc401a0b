"""Options of the `llm` scenario (`-o key=value`). The defaults fit a laptop's CPU and a model of 135M
weights."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

METHODS = ("lora", "full")


class LlmOptions(BaseModel):
    """Everything that shapes an experiment and is not searched; bounds of what is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train_tokens: int = Field(50_000, ge=64, description="tokens that every experiment trains on")
    train_rows: int = Field(2000, ge=16, description="rows that the data script may choose from")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="of weights and arithmetic")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train and predict")
    checkpoint_steps: int = Field(50, ge=0, description="optimiser steps between checkpoints; 0 is none")
    memory_mb: int = Field(0, ge=0, description="most memory of one command in MiB; 0 is no bound")
    pack_tokens: int = Field(2048, ge=1, description="most tokens in one training forward pass; bounds memory")

    max_new_tokens: int = Field(0, ge=0, description="most tokens of an answer; 0 is what the benchmark needs")
    temperature: float = Field(-1.0, description="of predictions; -1: 0 for one sample per item, 0.7 for more")
    top_p: float = Field(1.0, gt=0, le=1, description="of predictions")
    predict_batch_size: int = Field(128, ge=1, description="most sequences in flight")
    predict_batch_tokens: int = Field(32768, ge=1, description="most tokens in flight")

    rehearse: Literal["auto", "always", "never"] = Field(
        "auto", description="train a few steps before the full run; auto: only files that no template rendered"
    )
    llm_data: Literal["auto", "never"] = Field(
        "auto", description="whether the data script may ask language models; auto: with an agent that asks them too"
    )
    debug_rows: int = Field(16, ge=1, description="rows of a rehearsal")
    debug_tokens: int = Field(512, ge=16, description="training tokens of a rehearsal")

    methods: tuple[str, ...] = Field(("lora",), description="searched: lora, full, or both: lora,full")
    ranks: tuple[int, ...] = Field((4, 8, 16, 32, 64), description="searched ranks of adapters")
    layers: tuple[int, ...] = Field((6, 12, 18, 0), description="searched: adapters on the last N layers, 0 is all")
    learning_rate_low: float = Field(3e-4, gt=0, description="lowest learning rate of LoRA")
    learning_rate_high: float = Field(4e-3, gt=0, description="highest learning rate of LoRA")
    full_learning_rate_ratio: float = Field(0.03, gt=0, description="learning rate of full training over LoRA's")
    batch_sizes: tuple[int, ...] = Field((4, 8, 16, 32), description="searched rows per optimiser step")
    max_lengths: tuple[int, ...] = Field((256, 512, 1024), description="searched most tokens per row")

    @field_validator("methods", "ranks", "layers", "batch_sizes", "max_lengths", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("ranks", "layers", "batch_sizes", "max_lengths", "methods")
    @classmethod
    def _not_empty(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if not value:
            raise ValueError("needs at least one value")
        return tuple(dict.fromkeys(value))

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [method for method in value if method not in METHODS]
        if wrong:
            raise ValueError(f"unknown method {wrong[0]!r}; valid: {', '.join(METHODS)}")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> LlmOptions:
        if self.learning_rate_low >= self.learning_rate_high:
            raise ValueError("learning_rate_low must be below learning_rate_high")
        if self.temperature < 0 and self.temperature != -1:
            raise ValueError("temperature must be 0 or more, or -1")
        return self
