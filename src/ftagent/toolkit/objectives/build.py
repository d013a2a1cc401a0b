"""From a config to what is trained on: its rows, and the objective with a batch for each optimiser step."""

from __future__ import annotations

import random
from typing import Any

from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.data import Problem, read_conversations, read_preferences, read_problems
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.objectives.prepared import Prepared, Rows
from ftagent.toolkit.share import ALONE, Share


def read_rows(config: TrainConfig) -> Rows:
    """The rows of `config`'s objective. Raises ToolkitError with file and line."""
    read = _reader(config)
    source = config.dataset_path
    rows = read(source, config.split)
    if config.validation_path:
        return Rows(rows, read(config.validation_path, "train"), source, config.validation_path)
    if config.validation_split:
        return Rows(rows, read(source, config.validation_split), source, source)
    held_out = round(len(rows) * config.validation_share)
    if config.validation_share and not 0 < held_out < len(rows):
        raise ToolkitError(f"validation_share: {config.validation_share} of {len(rows)} rows leaves one part empty")
    order = list(range(len(rows)))
    random.Random(f"{config.seed}/held out").shuffle(order)
    chosen = set(order[:held_out])
    return Rows(
        [row for index, row in enumerate(rows) if index not in chosen],
        [row for index, row in enumerate(rows) if index in chosen],
        source,
        source,
    )


def prepare_objective(model: Any, tokenizer: Any, config: TrainConfig, rows: Rows, share: Share = ALONE) -> Prepared:
    """Objective and batches. `model` has no adapter yet: it is the reference of dpo and grpo. `share`: this process's.

    Raises ToolkitError for rows that cannot be encoded or leave nothing to learn.
    """
    if config.objective == "sft":
        from ftagent.toolkit.models import can_pack
        from ftagent.toolkit.objectives.sft import SupervisedObjective
        from ftagent.toolkit.objectives.sft_rows import batches_of, encode, held_out_batches

        encoded = encode(model, tokenizer, rows.train, config, rows.source)
        batches, numbers = batches_of(encoded, config, rows.source)
        unseen = encode(model, tokenizer, rows.held_out, config, rows.held_out_source) if rows.held_out else []
        held_out = held_out_batches(unseen, config, rows.held_out_source)
        objective = SupervisedObjective(config.pack_tokens if can_pack(model, config.max_length) else 0, share)
        return Prepared(objective, batches, held_out, numbers)
    if config.objective == "dpo":
        from ftagent.toolkit.objectives.dpo_rows import prepare_preferences

        return prepare_preferences(model, tokenizer, config, rows, share)
    from ftagent.toolkit.objectives.grpo_rows import prepare_problems

    return prepare_problems(model, tokenizer, config, rows, share)


def _reader(config: TrainConfig) -> Any:
    if config.objective == "sft":
        return read_conversations
    if config.objective == "dpo":
        return read_preferences

    def read_checked(source: str, split: str) -> list[Problem]:
        from ftagent.toolkit.objectives.grpo_rows import check_problems

        problems = read_problems(source, split)
        check_problems(problems, config.verifier, source)
        return problems

    return read_checked
