"""Everything that is wrong with a file of training data, and what is in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftagent.toolkit.data.formats import Format, Item
from ftagent.toolkit.data.languages import EXCERPT, languages
from ftagent.toolkit.data.lengths import Bin, Characters, Summary, Tokens, conversations_of, histogram, summarise
from ftagent.toolkit.data.messages import Fault, RowError
from ftagent.toolkit.data.opening import open_source
from ftagent.toolkit.data.reading import format_named, item_faults, parsed
from ftagent.toolkit.data.repeats import Repeats, keys_of
from ftagent.toolkit.data.sources import fail
from ftagent.toolkit.data.types import Conversation, Message, Preference
from ftagent.toolkit.errors import ToolkitError

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f�]")


@dataclass(frozen=True)
class RowFault:
    """One thing that is wrong with one row. `row` is its line in JSON Lines, else its number from 1."""

    row: int
    place: str
    kind: str
    text: str


@dataclass
class Report:
    """What a check found. `rows` counts those that could be read as the format; numbers are of those."""

    name: str
    format: str
    kind: str
    unit: str
    limit: int | None
    rows: int = 0
    unreadable: int = 0
    faults: list[RowFault] = field(default_factory=list)
    turns: Summary | None = None
    lengths: Summary | None = None
    learnt: Summary | None = None
    histogram: list[Bin] = field(default_factory=list)
    languages: dict[str, int] = field(default_factory=dict)
    languages_of: int = 0

    @property
    def kinds(self) -> dict[str, int]:
        """Faults by kind, most first."""
        return dict(Counter(fault.kind for fault in self.faults).most_common())


def check(
    path: Path | str, measure: Characters | Tokens, split: str = "train", read_as: str = "", against: Sequence[str] = ()
) -> Report:
    """Look at every row. Raises ToolkitError where the file, or one of `against`, cannot be read at all."""
    faults: list[RowFault] = []
    known = _known(against)
    form: Format | None = format_named(read_as, "--from") if read_as else None
    source = open_source(
        path, split, lambda number, place, text: faults.append(RowFault(number, place, "syntax", text))
    )
    own = Repeats()
    unreadable = 0
    turns: list[int] = []
    sizes: list[tuple[int, int]] = []
    texts: list[str] = []
    for number, (found, _), item in parsed(source, None, form):
        form = found
        place = source.place(number)
        for kind, text in _faults(item):
            faults.append(RowFault(number, place, kind, text))
        if isinstance(item, RowError):
            unreadable += 1
            continue
        turns.append(max(_turns(conversation) for conversation in conversations_of(item)))
        texts.append(_excerpt(item))
        keys = keys_of(item)
        if earlier := own.earlier(keys):
            faults.append(RowFault(number, place, "duplicate", earlier))
        own.add(keys, _short(place, source.name))
        for kind, text in [*(known.overlap(keys) if known else ()), *_measured(item, measure, sizes)]:
            faults.append(RowFault(number, place, kind, text))
    if form is None:
        what = (
            f"{faults[0].place}: {faults[0].text}"
            if faults
            else f"{path}: has no rows{'' if split == 'train' else f' in {split}'}"
        )
        raise ToolkitError(what)
    unreadable += sum(fault.kind == "syntax" for fault in faults)
    faults.sort(key=lambda fault: fault.row)
    report = Report(source.name, form.name, form.kind, measure.unit, measure.limit, len(turns), unreadable, faults)
    report.turns, report.lengths = summarise(turns), summarise(size for size, _ in sizes)
    report.learnt = summarise(learnt for _, learnt in sizes) if form.kind != "problem" else None
    report.histogram = histogram([size for size, _ in sizes])
    report.languages, report.languages_of = languages(texts) if texts else ({}, 0)
    return report


def _known(against: Sequence[str]) -> Repeats | None:
    """What is in other files, of whatever format; none of them needs replies."""
    known = Repeats() if against else None
    for name in against:
        source = open_source(name, "train", fail)
        for number, _, item in parsed(source, None, None):
            if isinstance(item, RowError):
                raise ToolkitError(f"{source.place(number)}: {item}")
            assert known is not None
            known.add(keys_of(item), source.place(number))
    return known


def _faults(item: Item | RowError) -> list[Fault]:
    if isinstance(item, RowError):
        return list(item.faults)
    found = item_faults(item)
    conversations = conversations_of(item)
    for conversation in conversations:
        found += [fault for fault in _order_faults(conversation.messages) if fault not in found]
        found += [fault for fault in _text_faults(conversation.messages) if fault not in found]
    if isinstance(item, Preference) and item.chosen == item.rejected:
        found.append(("same_replies", '"chosen" and "rejected" are the same; nothing can be learnt from them'))
    return found


def _order_faults(messages: Sequence[Message]) -> list[Fault]:
    found: list[Fault] = []
    before = "system"
    tools = [str(number) for number, message in enumerate(messages, start=1) if message["role"] == "tool"]
    for number, message in enumerate(messages, start=1):
        role = message["role"]
        if role == "system":
            if number > 1:
                found.append(("role_order", f"message {number} is a system turn after the first; move it to the front"))
            continue
        if role == "assistant" and before == "system":
            found.append(
                ("role_order", f"message {number}, the first turn, is the assistant's; begin with a user turn")
            )
        elif role == before and role != "tool":
            found.append(("role_order", f"messages {number - 1} and {number} are both {role} turns; join them"))
        elif role == "tool" and before not in ("assistant", "tool"):
            found.append(("role_order", f"message {number} is a tool turn with no assistant turn before it"))
        before = role
    if tools:
        many = f"messages {', '.join(tools)} are tool turns" if len(tools) > 1 else f"message {tools[0]} is a tool turn"
        found.append(("tool_turn", f"{many}, which training refuses; remove the row or the turns"))
    return found


def _text_faults(messages: Sequence[Message]) -> list[Fault]:
    found: list[Fault] = []
    for number, message in enumerate(messages, start=1):
        if bad := _CONTROL.search(message["content"] + message.get("thinking", "")):
            what = "the sign of a damaged character" if bad[0] == "\ufffd" else "a control character"
            found.append(("character", f"message {number} has {what}, U+{ord(bad[0]):04X}; remove it"))
    return found


def _measured(item: Item, measure: Characters | Tokens, sizes: list[tuple[int, int]]) -> list[Fault]:
    try:
        size, learnt = measure(item)
    except ToolkitError as error:
        # Its place is ours to tell.
        return [("template", str(error).removeprefix(f":{item.line}: "))]
    sizes.append((size, learnt))
    if measure.limit is not None and size > measure.limit:
        return [("too_long", f"{size} {measure.unit}, more than {measure.limit}; shorten it, or it is cut")]
    return []


def _turns(conversation: Conversation) -> int:
    return sum(message["role"] != "system" for message in conversation.messages)


def _excerpt(item: Item) -> str:
    messages = item.messages if isinstance(item, Conversation) else item.prompt
    return "\n".join(message["content"][:EXCERPT] for message in messages if message["role"] != "system")[:EXCERPT]


def place_in(place: str, name: str) -> str:
    """A place without the name of the file or folder that it is in."""
    return place.removeprefix(name).lstrip(":/ ") if place.startswith(name) else place


def _short(place: str, name: str) -> str:
    """`line 12` for a place in the same file."""
    rest = place_in(place, name)
    return f"line {rest}" if rest.isdigit() else rest
