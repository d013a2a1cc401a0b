"""What a workspace gets in order to predict: questions and decoding, never answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftagent.core.types import Files
from ftagent.evaluation.benchmark import Benchmark, Item, messages_of

QUESTIONS = "questions.jsonl"
CONFIG = "predict.yaml"
PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True)
class Decoding:
    """How answers are generated: the same for the baseline and every candidate."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    batch_size: int = 128
    batch_tokens: int = 32768


def prediction_files(
    benchmark: Benchmark, items: Sequence[Item], decoding: Decoding, model: str, adapter: str | None
) -> Files:
    """questions.jsonl and predict.yaml for `python -m ftagent.toolkit.predict predict.yaml`."""
    import yaml

    config: dict[str, Any] = {
        "model": model,
        "questions": QUESTIONS,
        "output": PREDICTIONS,
        **decoding.__dict__,
    }
    if adapter:
        config["adapter"] = adapter
    rows = [
        json.dumps({"id": item.id, "messages": messages_of(benchmark, item.question)}, ensure_ascii=False)
        for item in items
    ]
    return {QUESTIONS: "\n".join(rows) + "\n", CONFIG: str(yaml.safe_dump(config, sort_keys=True))}
