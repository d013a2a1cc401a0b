"""`python -m ftagent.toolkit.train train.yaml`: LoRA or full fine-tuning with assistant-only loss.

The loop is our own because it is several times faster than TRL's on the short rows of small benchmarks
(tests/bench/bench_toolkit.py measures it): rows are packed without padding, their common beginning is
computed once, and logits exist only where there is a label. That changes the loss by float rounding alone.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftagent.toolkit.command import Emit, run_command
from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.files import MARKER, fingerprint, is_complete, mark_complete
from ftagent.toolkit.objectives.build import Rows, prepare_objective, read_rows

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Summary:
    """What a training saw, also in summary.json.

    `tokens` were seen, padding apart, repeated rows counted again. `seconds` are those of the optimiser's loop.
    `numbers` are the objective's: of sft, `rows_cut` lost labels to `max_length`, `rows_dropped` all of them.
    """

    steps: int
    tokens: int
    numbers: Mapping[str, int]
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"steps": self.steps, "tokens": self.tokens, **self.numbers, "seconds": self.seconds}


def train(config: TrainConfig, emit: Emit) -> Summary | None:
    """Fine-tune as `config` says. Its save_model_path gets adapter or weights, tokenizer, metrics.jsonl, summary.json.

    Goes on from the last complete checkpoint of the same config and data; None when the result is there.
    Raises ToolkitError for a request that cannot be done.
    """
    rows = read_rows(config)
    identity = _identity(config, rows)
    if is_complete(config.save_model_path, identity):
        emit({"event": "already_complete", "output": str(config.save_model_path)})
        return None
    import torch

    from ftagent.toolkit.checkpoint import load_checkpoint
    from ftagent.toolkit.loop import CHECKPOINTS, Training, optimise
    from ftagent.toolkit.models import add_adapter, load_model

    model, tokenizer = load_model(config.model_path, config.dtype, config.device)
    prepared = prepare_objective(model, tokenizer, config, rows)
    tokens = sum(map(prepared.objective.tokens, prepared.batches))
    summary = Summary(len(prepared.batches), tokens, prepared.numbers)
    emit({"event": "data", **{key: value for key, value in summary.document().items() if key != "seconds"}})
    torch.manual_seed(config.seed)
    if config.method == "lora":
        model = add_adapter(model, config)
    # Under a PEFT model the base model holds the adapters too, and its forward takes every argument.
    inner = model.get_base_model() if config.method == "lora" else model.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in inner.parameters() if parameter.requires_grad],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )
    _make_folder(config.save_model_path)
    progress = load_checkpoint(config.save_model_path / CHECKPOINTS, identity, inner, optimizer)
    if progress.step:
        emit({"event": "resumed", "step": progress.step})
    training = Training(inner.train(), optimizer, prepared.objective, prepared.batches, config, identity, emit)
    optimise(training, progress)
    summary = replace(summary, seconds=round(progress.seconds, 3))
    _save(model, tokenizer, config.save_model_path, identity, summary)
    emit({"event": "saved", "output": str(config.save_model_path), **summary.document()})
    return summary


FREE = ("model_name", "dataset_path", "split", "save_model_path", "validation_path", "validation_split", "then",
        "checkpoint_steps", "keep_checkpoints", "log_steps", "report_to")  # fmt: skip
"""Keys that do not change the result: where it is written and how often it reports. Rows count by their content."""


def _identity(config: TrainConfig, rows: Rows) -> str:
    """Same identity, same result."""
    values = config.model_dump(mode="json", exclude=set(FREE))
    return fingerprint({"config": values, "data": rows.fingerprint()})


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).unlink(missing_ok=True)
    except OSError as error:
        raise ToolkitError(f"save_model_path {str(folder)!r}: cannot be written: {error.strerror}") from error


def _save(model: Any, tokenizer: Any, output: Path, identity: str, summary: Summary) -> None:
    from ftagent.toolkit.loop import CHECKPOINTS, METRICS

    model.save_pretrained(output, safe_serialization=True)
    tokenizer.save_pretrained(output)
    (output / SUMMARY).write_text(json.dumps(summary.document(), indent=1) + "\n", encoding="utf-8")
    for path in output.glob("*.safetensors"):
        # safetensors writes for its owner alone; a predict stage may run as somebody else.
        path.chmod(0o644)
    names = [path.name for path in output.iterdir() if path.is_file() and path.name not in (MARKER, METRICS)]
    mark_complete(output, identity, names)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(run_command("train", sys.argv[1:], TrainConfig, train))
