"""Training data of every format and file, read and checked row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ftagent.toolkit.data.formats import FORMATS, Format, Item, Kind, Row, describe, detect, parse
from ftagent.toolkit.data.messages import Fault, RowError, prompt_faults, training_faults
from ftagent.toolkit.data.opening import open_source
from ftagent.toolkit.data.sources import Source, fail
from ftagent.toolkit.data.tables import decode_cells
from ftagent.toolkit.data.types import Conversation, Preference, Problem
from ftagent.toolkit.errors import ToolkitError

_WANTED = {"conversation": "conversations", "preference": "preference pairs", "problem": "problems with answers"}


def read_conversations(path: Path | str, split: str = "train") -> list[Conversation]:
    """Conversations of a file, folder or hub id, in order. Each ends in what the assistant says, or a tool.

    Raises ToolkitError with file and line for a row that cannot be trained on, and where there are no rows.
    """
    return _read(path, split, "conversation", lambda item: training_faults(item.messages))


def read_preferences(path: Path | str, split: str = "train") -> list[Preference]:
    """Pairs of replies of a file, folder or hub id, in order. Raises ToolkitError like `read_conversations`."""
    return _read(path, split, "preference", preference_faults)


def read_problems(path: Path | str, split: str = "train") -> list[Problem]:
    """Problems with answers of a file, folder or hub id, in order. Raises ToolkitError like `read_conversations`."""
    return _read(path, split, "problem", lambda item: prompt_faults(item.prompt, "the prompt"))


def item_faults(item: Item) -> list[Fault]:
    """Why an item cannot be trained on."""
    if isinstance(item, Conversation):
        return training_faults(item.messages)
    return preference_faults(item) if isinstance(item, Preference) else prompt_faults(item.prompt, "the prompt")


def preference_faults(item: Preference) -> list[Fault]:
    """Why a pair cannot be trained on."""
    faults = prompt_faults(item.prompt, "the prompt")
    for name, reply in (("chosen", item.chosen), ("rejected", item.rejected)):
        if not reply or reply[-1]["role"] != "assistant":
            faults.append(("role_order", f'"{name}" must end in an assistant turn'))
    return faults


def _read(path: Path | str, split: str, kind: Kind, faults: Callable[[Any], Sequence[Fault]]) -> list[Any]:
    source = open_source(path, split, fail)
    items = []
    for number, _, item in parsed(source, kind, None):
        if isinstance(item, RowError):
            raise ToolkitError(f"{source.place(number)}: {item}")
        if found := faults(item):
            raise ToolkitError(f"{source.place(number)}: {found[0][1]}")
        items.append(item)
    if not items:
        raise ToolkitError(f"{path}: has no rows{'' if split == 'train' else f' in {split}'}")
    return items


def parsed(
    source: Source, kind: Kind | None, form: Format | None
) -> Iterator[tuple[int, tuple[Format, Row], Item | RowError]]:
    """(number, format and row, item or what is wrong) of each row; the first row tells the format where none is given.

    Raises ToolkitError where the first row tells none, or one that is not of `kind`.
    """
    first: int | None = None
    for number, row in source.rows:
        if first is None:
            first = number
            form = form or _first_format(row, kind, source.place(number))
        assert form is not None
        try:
            if source.csv:
                row = decode_cells(row, form)
            item = parse(form, row, number)
        except RowError as error:
            yield number, (form, row), _mixed(error, form, row, source.place(first))
        else:
            yield number, (form, row), item


def format_named(name: str, option: str) -> Format:
    """Raises ToolkitError for a name that there is not."""
    if name not in FORMATS:
        raise ToolkitError(f"{option} {name}: no such format; there are {', '.join(FORMATS)}")
    return FORMATS[name]


def _first_format(row: Row, kind: Kind | None, place: str) -> Format:
    found = detect(row, kind)
    if found is not None:
        return found
    other = detect(row)
    if other is None or kind is None:
        known = "; ".join(entry.says for entry in FORMATS.values() if kind in (None, entry.kind))
        raise ToolkitError(f"{place}: no known format, it has {describe(row)}; known are rows with {known}")
    raise ToolkitError(f"{place}: is {other.name} ({other.says}), and {_WANTED[kind]} are needed here")


def _mixed(error: RowError, form: Format, row: Row, first: str) -> RowError:
    """The same error, or a plainer one where the row is simply of another format."""
    if form.matches(row):
        return error
    other = detect(row)
    what = f"is {other.name} ({other.says})" if other else f"has {describe(row)}"
    return RowError(("format", f"{what}, but {first} is {form.name} ({form.says}); a file has one format"))
