"""The pairs of each optimiser step of direct preference optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftagent.toolkit.batches import plan
from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.data import Preference
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.files import content_of, fingerprint
from ftagent.toolkit.mapping import Mapper, Mapping, adopt_template
from ftagent.toolkit.models import can_pack, check_positions
from ftagent.toolkit.objectives.dpo import PreferenceObjective, PreferenceRows, with_reference
from ftagent.toolkit.objectives.prepared import Prepared, Rows
from ftagent.toolkit.share import Share
from ftagent.toolkit.tokens import IGNORED, stop_tokens

REFERENCE = "reference.json"
"""In the folder of the checkpoints: log-probabilities under the model before training."""


def prepare_preferences(model: Any, tokenizer: Any, config: TrainConfig, rows: Rows, share: Share) -> Prepared:
    """Objective, batches and held-out batches. `model`, without adapters, is the reference.

    A pair is seen whole: with max_tokens the last one that would exceed it is left out.
    Raises ToolkitError: rows that cannot be encoded, nothing left to compare.
    """
    from ftagent.toolkit.loop import CHECKPOINTS

    mapping = Mapping(config.map_function, config.thinking)
    encoded = encode_preferences(model, tokenizer, rows.train, config.max_length, rows.source, mapping)
    pairs = _comparable(encoded, config, rows.source)
    held_out = encode_preferences(model, tokenizer, rows.held_out, config.max_length, rows.held_out_source, mapping)
    held_out = _comparable(held_out, config, rows.held_out_source) if held_out else []
    lengths = [len(pair.chosen.ids) + len(pair.rejected.ids) for pair in pairs]
    order = [
        item.row
        for item in plan(lengths, config.seed, config.epochs, config.max_tokens)
        if item.tokens == lengths[item.row]
    ]
    if not order:
        raise ToolkitError(f"max_tokens: {config.max_tokens} ends before the first pair, of {lengths[0]} tokens")
    pack_tokens = config.pack_tokens if can_pack(model, config.max_length) else 0
    used = sorted(set(order))
    values = config.model_dump(mode="json", include={"model_path", "dtype", "device", "pack_tokens"})
    identity = fingerprint([values, content_of(Path(config.model_path))])
    resumable = config.checkpoint_steps or config.validates
    cache = config.save_model_path / CHECKPOINTS / REFERENCE if resumable else None
    known = with_reference(model, [*(pairs[index] for index in used), *held_out], pack_tokens, cache, identity)
    trained = dict(zip(used, known, strict=False))
    seen = [trained[index] for index in order]
    objective = PreferenceObjective(config.dpo_beta, config.dpo_loss, config.dpo_label_smoothing, pack_tokens, share)
    numbers = {
        "rows": len(pairs),
        "rows_cut": sum(pair.chosen.cut or pair.rejected.cut for pair in encoded),
        "rows_dropped": len(encoded) - len(pairs),
    }
    size = config.batch_size * config.gradient_accumulation
    return Prepared(objective, _split(seen, size), _split(known[len(used) :], config.batch_size), numbers)


def encode_preferences(
    model: Any,
    tokenizer: Any,
    preferences: Sequence[Preference],
    max_length: int,
    source: str,
    mapping: Mapping | None = None,
) -> list[PreferenceRows]:
    """Both replies of each pair after their prompt. Raises ToolkitError with `source` and line."""
    mapping = mapping or Mapping()
    adopt_template(tokenizer, mapping)
    mapper = Mapper(tokenizer, mapping, stop_tokens(tokenizer, model))
    pairs = []
    for pair in preferences:
        place = f"{source}:{pair.line}"
        chosen, rejected = (
            mapper.reply(pair.prompt, reply, max_length, place) for reply in (pair.chosen, pair.rejected)
        )
        pairs.append(PreferenceRows(chosen, rejected))
    check_positions(model, [max(len(pair.chosen.ids), len(pair.rejected.ids)) for pair in pairs], source)
    return pairs


def _comparable(encoded: Sequence[PreferenceRows], config: TrainConfig, source: str) -> list[PreferenceRows]:
    """Without pairs of which `max_length` cut a reply away whole, or cut both to the same beginning."""
    pairs = [pair for pair in encoded if _labelled(pair) and pair.chosen.ids != pair.rejected.ids]
    if not pairs:
        raise ToolkitError(f"{source}: no pair has two different replies within max_length {config.max_length}")
    return pairs


def _labelled(pair: PreferenceRows) -> bool:
    return all(any(label != IGNORED for label in row.labels[1:]) for row in (pair.chosen, pair.rejected))


def _split(pairs: Sequence[PreferenceRows], size: int) -> list[list[PreferenceRows]]:
    return [list(pairs[start : start + size]) for start in range(0, len(pairs), size)]
