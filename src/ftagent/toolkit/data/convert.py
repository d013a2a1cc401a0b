"""From one format and kind of file to another, so that going back gives the same conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftagent.toolkit.data.formats import Format, Item, Kind, Row, unparse
from ftagent.toolkit.data.messages import RowError
from ftagent.toolkit.data.opening import open_source
from ftagent.toolkit.data.reading import format_named, parsed
from ftagent.toolkit.data.sources import fail
from ftagent.toolkit.data.types import Conversation, Problem
from ftagent.toolkit.data.writing import without_null, write_rows, writer_for
from ftagent.toolkit.errors import ToolkitError


@dataclass(frozen=True)
class Converted:
    """What was done. `left_out`: rows that the format cannot hold, where they were to be left out."""

    read_as: str
    written_as: str
    rows: int
    left_out: int


def convert(
    given: Path | str, out: Path, read_as: str = "", write_as: str = "", split: str = "train", leave_out: bool = False
) -> Converted:
    """Write `given` to `out`. Without `read_as` its format is detected; without `write_as` it keeps its format.

    Raises ToolkitError with file and line for a row that cannot be read, or that the format cannot hold unless
    `leave_out`; `out` is then as it was.
    """
    writer_for(out)
    form = format_named(read_as, "--from") if read_as else None
    target = format_named(write_as, "--to") if write_as else None
    source = open_source(given, split, fail)
    numbers: list[int] = []
    rows: list[Row] = []
    items: list[Item] = []
    for number, (found, row), item in parsed(source, None, form):
        if isinstance(item, RowError):
            raise ToolkitError(f"{source.place(number)}: {item}")
        form = found
        numbers.append(number)
        rows.append(_without_null(row, found) if source.tables else row)
        items.append(item)
    if form is None or not items:
        raise ToolkitError(f"{given}: has no rows{'' if split == 'train' else f' in {split}'}")
    target = target or form
    places = [source.place(number) for number in numbers] if target is not form else []
    if target is not form:
        kept, rows = _rows(items, target, places, leave_out)
        numbers = [numbers[index] for index in kept]
    if not rows:
        raise ToolkitError(f"{given}: no row of it can be held by {target.name}")
    write_rows(out, rows, target, lambda index: source.place(numbers[index]))
    return Converted(form.name, target.name, len(rows), len(items) - len(rows))


def _without_null(row: Row, form: Format) -> Row:
    """The row without the keys of messages that only other messages of its table have."""
    own = {*form.keys, *form.prompts}
    return {key: without_null(value) if key in own else value for key, value in row.items()}


def _rows(items: Sequence[Item], target: Format, places: Sequence[str], leave_out: bool) -> tuple[list[int], list[Row]]:
    """(indices of the rows that are kept, rows). Texts stand for messages where they can in every row."""
    fit = [_as_kind(item, target.kind, places[index], target.name) for index, item in enumerate(items)]
    text = all(target.is_text(item) for item in fit)
    kept: list[int] = []
    rows: list[Row] = []
    for index, item in enumerate(fit):
        try:
            rows.append(unparse(target, item, text))
        except RowError as error:
            if not leave_out:
                raise ToolkitError(f"{places[index]}: cannot become {target.name}: {error}") from error
        else:
            kept.append(index)
    return kept, rows


def _as_kind(item: Item, kind: Kind, place: str, name: str) -> Item:
    """A problem with its answer is a conversation, too. Raises ToolkitError for what is not of `kind`."""
    have: Kind = "conversation" if isinstance(item, Conversation) else "preference"
    if isinstance(item, Problem):
        have = "problem"
        if kind == "conversation" and item.answer.strip():
            reply = {"role": "assistant", "content": item.answer}
            return Conversation((*item.prompt, reply), item.line, item.id, item.extra)
    if have != kind:
        raise ToolkitError(f"{place}: a {have} cannot become {name}, which holds {kind}s")
    return item
