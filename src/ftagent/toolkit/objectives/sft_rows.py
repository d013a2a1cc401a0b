"""The rows of each optimiser step of supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftagent.toolkit.batches import plan
from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.data import Conversation
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.mapping import Mapper, Mapping, adopt_template
from ftagent.toolkit.models import check_positions
from ftagent.toolkit.tokens import IGNORED, Row, stop_tokens


def encode(
    model: Any, tokenizer: Any, conversations: Sequence[Conversation], config: TrainConfig, source: str
) -> list[Row]:
    """Ids and labels of the conversations, as map function and thinking say. ToolkitError: `source` and line."""
    mapping = Mapping(config.map_function, config.thinking)
    adopt_template(tokenizer, mapping)
    mapper = Mapper(tokenizer, mapping, stop_tokens(tokenizer, model))
    rows = list(mapper.conversations(conversations, config.max_length, source))
    check_positions(model, [len(row.ids) for row in rows], source)
    return rows


def batches_of(encoded: Sequence[Row], config: TrainConfig, source: str) -> tuple[list[list[Row]], dict[str, int]]:
    """Rows of each optimiser step, and what a summary says of them. Raises ToolkitError where nothing has a label."""
    rows = _labelled(encoded, config, source)
    seen = [
        Row(rows[item.row].ids[: item.tokens], rows[item.row].labels[: item.tokens], rows[item.row].cut)
        for item in plan([len(row.ids) for row in rows], config.seed, config.epochs, config.max_tokens)
    ]
    size = config.batch_size * config.gradient_accumulation
    steps = [seen[start : start + size] for start in range(0, len(seen), size)]
    if len(steps) > 1 and not any(map(_teaches, steps[-1])):
        # The token budget ended inside a prompt: a step without a label would be no step.
        steps[-2:] = [steps[-2] + steps[-1]]
    if not any(map(_teaches, steps[0])):
        raise ToolkitError(f"max_tokens: {config.max_tokens} ends before the first label")
    return steps, {
        "rows": len(rows),
        "rows_cut": sum(row.cut for row in encoded),
        "rows_dropped": len(encoded) - len(rows),
    }


def held_out_batches(encoded: Sequence[Row], config: TrainConfig, source: str) -> list[list[Row]]:
    """Held-out rows, by length so that a batch holds rows of a kind. ToolkitError where no row has a label."""
    rows = sorted(_labelled(encoded, config, source), key=lambda row: len(row.ids)) if encoded else []
    return [rows[start : start + config.batch_size] for start in range(0, len(rows), config.batch_size)]


def _labelled(encoded: Sequence[Row], config: TrainConfig, source: str) -> list[Row]:
    rows = [row for row in encoded if _teaches(row)]
    if not rows:
        raise ToolkitError(f"{source}: max_length {config.max_length} leaves no label in any row")
    return rows


def _teaches(row: Row) -> bool:
    return any(label != IGNORED for label in row.labels[1:])
