"""What a training leaves: adapter or weights, tokenizer, the effective config, and what it saw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.errors import full_storage_is_told
from ftagent.toolkit.files import MARKER, mark_complete
from ftagent.toolkit.logs import LOG
from ftagent.toolkit.models import ADAPTER_CONFIG, ADAPTER_WEIGHTS

SUMMARY = "summary.json"
EFFECTIVE = "train.yaml"
CONFIG = "config.json"


@dataclass(frozen=True)
class Summary:
    """What a training saw, also in summary.json.

    `steps` were taken, of `planned`. `tokens` were seen, padding apart, repeated rows counted again. `numbers` are the
    objective's: of sft, `rows_cut` lost labels to `max_length`, `rows_dropped` all of them. `seconds` are those of the
    optimiser's loop. `best_step` and `validation_loss` are those of the result, None without validation.
    """

    steps: int
    tokens: int
    numbers: Mapping[str, int]
    planned: int
    seconds: float = 0.0
    best_step: int | None = None
    validation_loss: float | None = None

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        validated = {
            "best_step": self.best_step, "validation_loss": self.validation_loss,
            "stopped_early": self.steps < self.planned,
        }  # fmt: skip
        return {
            "steps": self.steps, "tokens": self.tokens, **self.numbers, "seconds": self.seconds,
            **(validated if self.best_step is not None else {}),
        }  # fmt: skip


def write_model(
    model: Any, folder: Path, tokenizer: Any = None, saved: Any = None, weights: Mapping[str, Any] | None = None
) -> None:
    """The adapter of a PEFT model (`saved` is None), or all weights in dtype `saved`, and the tokenizer, if given.

    `weights`: to write instead of those in `model`.
    """
    if saved is None or saved is model.dtype:
        given = {} if weights is None else {"state_dict": dict(weights)}
        model.save_pretrained(folder, safe_serialization=True, **given)
    else:
        tensors = model.state_dict() if weights is None else weights
        converted = {name: tensor.to(saved) for name, tensor in tensors.items()}
        model.save_pretrained(folder, safe_serialization=True, state_dict=converted)
        # Transformers writes the format that the model has in memory.
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config["dtype"] = str(saved).removeprefix("torch.")
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if saved is not None:
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            # Of an older result here: transformers would load it, over its own base, in place of these weights.
            (folder / name).unlink(missing_ok=True)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        # safetensors writes for its owner alone; a predict stage may run as somebody else.
        path.chmod(0o644)


def write_config(folder: Path, config: TrainConfig) -> None:
    """train.yaml, which tells how to ask what lies in `folder`, and how it was trained."""
    import yaml

    values = config.model_dump(mode="json")
    preset = f"# The keys in effect; preset {config.model_name} is part of them.\n" if config.model_name else ""
    text = preset + yaml.safe_dump({**values, "model_name": ""}, sort_keys=False, allow_unicode=True)
    (folder / EFFECTIVE).write_text(text, encoding="utf-8")


def save_result(folder: Path, identity: str, summary: Summary, config: TrainConfig, others: set[str]) -> None:
    """Write summary.json and train.yaml beside the model, and vouch for all but `others`. Raises StorageFull."""
    with full_storage_is_told(str(folder), lambda: "free some space, and the same command goes on"):
        (folder / SUMMARY).write_text(json.dumps(summary.document(), indent=1) + "\n", encoding="utf-8")
        write_config(folder, config)
        skipped = {MARKER, LOG, *others}
        mark_complete(folder, identity, [p.name for p in folder.iterdir() if p.is_file() and p.name not in skipped])
