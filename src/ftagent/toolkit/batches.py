"""Which rows are seen in which step, and how the rows of a step are laid out for a forward pass."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftagent.toolkit.tokens import IGNORED, Row


@dataclass(frozen=True)
class Seen:
    """A row in its turn; `tokens` of it are seen (fewer than it has only at the end of a token budget)."""

    row: int
    tokens: int


def plan(lengths: Sequence[int], seed: int, epochs: float | None, max_tokens: int | None) -> list[Seen]:
    """Rows in the order in which they are seen: each epoch is a permutation of its own.

    With `max_tokens` the tokens of the plan sum to exactly that; with `epochs`, n·epochs rows (at least 1).
    """
    seen: list[Seen] = []
    tokens = 0
    rows = max(1, round(len(lengths) * epochs)) if epochs is not None else 0
    epoch = 0
    while True:
        order = list(range(len(lengths)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        for row in order:
            if max_tokens is None and len(seen) == rows:
                return seen
            if max_tokens is not None and tokens == max_tokens:
                return seen
            taken = lengths[row] if max_tokens is None else min(lengths[row], max_tokens - tokens)
            seen.append(Seen(row, taken))
            tokens += taken
        epoch += 1


@dataclass(frozen=True)
class Pack:
    """Rows laid end to end in one sequence of `T` tokens, their common beginning once.

    `ids`, `positions`, `segments`: length T; segment 0 is the common beginning, which every row attends to.
    `sources`, `targets`, `rows`: length L; the logits at index `sources[i]` predict token `targets[i]`, which is a
    label of row `rows[i]`, counted from 0.
    """

    ids: list[int]
    positions: list[int]
    segments: list[int]
    sources: list[int]
    targets: list[int]
    rows: list[int]


def pack(rows: Sequence[Row]) -> Pack:
    """Lay out `rows`. The result computes what each row by itself would: rows do not see each other."""
    shared = _shared(rows)
    ids = list(rows[0].ids[:shared])
    positions = list(range(shared))
    segments = [0] * shared
    sources: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for number, row in enumerate(rows, start=1):
        start = len(ids)
        for index in range(max(shared, 1), len(row.ids)):
            if row.labels[index] != IGNORED:
                before = start + index - 1 - shared if index > shared else shared - 1
                sources.append(before)
                targets.append(row.labels[index])
                owners.append(number - 1)
        ids += row.ids[shared:]
        positions += range(shared, len(row.ids))
        segments += [number] * (len(row.ids) - shared)
    return Pack(ids, positions, segments, sources, targets, owners)


def split_into_packs(rows: Sequence[Row], most_tokens: int) -> list[Pack]:
    """`rows` in as few packs of at most `most_tokens` as their order allows; a longer row has its own."""
    packs: list[list[Row]] = []
    tokens = shared = 0
    for row in rows:
        # Of the rows in the pack: what all have in common is the least that the first has in common with another.
        common = min([_shared((packs[-1][0], row)), *([shared] if len(packs[-1]) > 1 else [])]) if packs else 0
        if not packs or tokens + len(row.ids) - len(packs[-1]) * common > most_tokens:
            packs.append([])
            tokens = common = 0
        packs[-1].append(row)
        tokens, shared = tokens + len(row.ids), common
    return [pack(chosen) for chosen in packs]


def attention_mask(pack: Pack, dtype: Any, device: Any) -> Any:
    """Additive mask (1, 1, T, T): a token attends to its own row so far and to the common beginning."""
    import torch

    segments = torch.tensor(pack.segments, device=device)
    same = (segments[:, None] == segments[None, :]) | (segments == 0)[None, :]
    visible = same & torch.ones_like(same).tril()
    mask = torch.zeros(visible.shape, dtype=dtype, device=device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[None, None]


def _shared(rows: Sequence[Row]) -> int:
    """Tokens that all rows begin with, as far as none of them is a label. Below every row's length."""
    if len(rows) < 2:
        return 0
    most = min(len(row.ids) for row in rows) - 1
    first = rows[0]
    for index in range(most):
        if any(row.ids[index] != first.ids[index] or row.labels[index] != IGNORED for row in rows):
            return index
    return most
