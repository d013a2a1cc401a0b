"""`python -m ftagent.toolkit.train train.yaml`: LoRA or full fine-tuning with assistant-only loss.

The loop is our own because it is several times faster than TRL's on the short rows of small benchmarks
(tests/bench/bench_toolkit.py measures it): rows are packed without padding, their common beginning is
computed once, and logits exist only where there is a label. That changes the loss by float rounding alone.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftagent.toolkit.batches import plan
from ftagent.toolkit.command import Emit, run_command
from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.data import Conversation, read_conversations
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.files import MARKER, fingerprint, is_complete, mark_complete, sha256

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Summary:
    """What a training saw, also in summary.json.

    `rows_cut` lost labels to `max_length`, `rows_dropped` all of them. `tokens` were seen, padding apart,
    repeated rows counted again. `seconds` are those of the optimiser's loop.
    """

    steps: int
    tokens: int
    rows: int
    rows_cut: int
    rows_dropped: int
    seconds: float = 0.0


def train(config: TrainConfig, emit: Emit) -> Summary | None:
    """Fine-tune as `config` says. Its save_model_path gets adapter or weights, tokenizer, metrics.jsonl, summary.json.

    Goes on from the last complete checkpoint of the same config and data; None when the result is there.
    Raises ToolkitError for a request that cannot be done.
    """
    conversations = read_conversations(config.dataset_path)
    identity = _identity(config)
    if is_complete(config.save_model_path, identity):
        emit({"event": "already_complete", "output": str(config.save_model_path)})
        return None
    import torch

    from ftagent.toolkit.checkpoint import load_checkpoint
    from ftagent.toolkit.kernels.select import speed_up
    from ftagent.toolkit.loop import CHECKPOINTS, Training, optimise
    from ftagent.toolkit.models import add_adapter, can_pack, load_model
    from ftagent.toolkit.objectives.sft import SupervisedObjective

    model, tokenizer = load_model(config.model_path, config.dtype, config.device)
    steps, summary = _prepare(model, tokenizer, conversations, config)
    emit({"event": "data", **{key: value for key, value in asdict(summary).items() if key != "seconds"}})
    torch.manual_seed(config.seed)
    packed = can_pack(model, config.max_length)
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
    speed_up(inner)
    progress = load_checkpoint(config.save_model_path / CHECKPOINTS, identity, inner, optimizer)
    if progress.step:
        emit({"event": "resumed", "step": progress.step})
    objective = SupervisedObjective(config.pack_tokens if packed else 0)
    optimise(Training(inner.train(), optimizer, objective, steps, config, identity, emit), progress)
    summary = Summary(**{**asdict(summary), "seconds": round(progress.seconds, 3)})
    _save(model, tokenizer, config.save_model_path, identity, summary)
    emit({"event": "saved", "output": str(config.save_model_path), **asdict(summary)})
    return summary


def _identity(config: TrainConfig) -> str:
    """Same identity, same result. Where it is written and how often it reports do not matter."""
    free = {"dataset_path", "save_model_path", "checkpoint_steps", "log_steps"}
    values = config.model_dump(mode="json", exclude=free)
    return fingerprint({"config": values, "data": sha256(config.dataset_path)})


def _prepare(
    model: Any, tokenizer: Any, conversations: Sequence[Conversation], config: TrainConfig
) -> tuple[list[list[Any]], Summary]:
    """Rows of each optimiser step, and what they amount to."""
    from ftagent.toolkit.tokens import IGNORED, Row, encode_conversation, stop_tokens

    stops = stop_tokens(tokenizer, model)
    source = str(config.dataset_path)
    encoded = [encode_conversation(tokenizer, row, stops, config.max_length, source) for row in conversations]
    rows = [row for row in encoded if any(label != IGNORED for label in row.labels[1:])]
    if not rows:
        raise ToolkitError(f"{source}: max_length {config.max_length} leaves no label in any row")
    seen = [
        Row(rows[item.row].ids[: item.tokens], rows[item.row].labels[: item.tokens], rows[item.row].cut)
        for item in plan([len(row.ids) for row in rows], config.seed, config.epochs, config.max_tokens)
    ]
    size = config.batch_size * config.gradient_accumulation
    steps = [seen[start : start + size] for start in range(0, len(seen), size)]
    if len(steps) > 1 and not any(label != IGNORED for row in steps[-1] for label in row.labels[1:]):
        # The token budget ended inside a prompt: a step without a label would be no step.
        steps[-2:] = [steps[-2] + steps[-1]]
    if not any(label != IGNORED for row in steps[0] for label in row.labels[1:]):
        raise ToolkitError(f"max_tokens: {config.max_tokens} ends before the first label")
    tokens = sum(len(row.ids) for row in seen)
    cut = sum(row.cut for row in encoded)
    return steps, Summary(len(steps), tokens, len(rows), cut, len(encoded) - len(rows))


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
    (output / SUMMARY).write_text(json.dumps(asdict(summary), indent=1) + "\n", encoding="utf-8")
    for path in output.glob("*.safetensors"):
        # safetensors writes for its owner alone; a predict stage may run as somebody else.
        path.chmod(0o644)
    names = [path.name for path in output.iterdir() if path.is_file() and path.name not in (MARKER, METRICS)]
    mark_complete(output, identity, names)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(run_command("train", sys.argv[1:], TrainConfig, train))
