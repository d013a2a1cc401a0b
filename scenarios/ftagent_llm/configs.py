"""Configuration files that an experiment or a model brings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftagent.toolkit.config import TrainConfig

NOT_CHOSEN: Mapping[str, Any] = {
    # A preset may be a file of the workspace, and the model is the same for every experiment.
    "model_name": "",
    "split": "train",
    "map_function": "auto",
    "objective": "sft",
    "verifier": "",
    "report_to": "none",
    # The loop trains in one process.
    "strategy": "ddp",
    "deepspeed_config": None,
    "keep_checkpoints": 0,
    # Every experiment trains on its whole budget, and scores come from the benchmark alone.
    "validation_path": None,
    "validation_split": None,
    "validation_share": 0.0,
    "early_stopping_patience": 0,
    "then": {},
}
"""Keys of a training that are the same in every run: what would read, write or report elsewhere, among others."""
WITHOUT_MEANING = frozenset({"epochs"}) | {
    name for name in TrainConfig.model_fields if name.startswith(("validation_", "early_stopping_", "dpo_", "grpo_"))
}
"""Keys that nothing in the loop reads."""


def read_yaml(text: str) -> dict[str, Any]:
    """The mapping in `text`; empty where it holds none or does not read."""
    import yaml

    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: 2026-99-99 is no date
        return {}
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}


def merged(text: str, fixed: Mapping[str, Any]) -> str:
    """An experiment's keys with those that no experiment chooses. What is not YAML stays: the toolkit says why."""
    import yaml

    values = read_yaml(text)
    if not values and text.strip():
        return text
    values.pop("epochs", None)
    return str(yaml.safe_dump({**values, **fixed}, sort_keys=True))


def layer_count(model: Path) -> int:
    """Transformer layers of the model in a folder; 0 where it does not tell."""
    try:
        return int(json.loads((model / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
