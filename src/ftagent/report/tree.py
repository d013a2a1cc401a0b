"""The experiments of a run as a tree of text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ftagent.core.state import State
from ftagent.core.types import Experiment
from ftagent.report.text import number, shorten


def tree_lines(state: State) -> list[str]:
    """One line per experiment below the baseline; `*` marks what the run selected."""
    children: dict[int | None, list[Experiment]] = defaultdict(list)
    for item in state.experiments:
        parent = item.hypothesis.parent
        # A parent that is not of this run (or not before it) would make a line unreachable.
        children[parent if parent is not None and parent < item.loop else None].append(item)
    selected = state.selected.loop if state.selected else None
    base = state.baseline_scores.get("validation")
    mark = " *" if state.selected and selected is None else ""
    head = f"baseline {number(base.value) if base else 'missing'}{mark}"
    return [head, *_below(children, None, "", selected)]


def _below(
    children: dict[int | None, list[Experiment]], parent: int | None, indent: str, selected: int | None
) -> Iterator[str]:
    # A stack instead of recursion: a chain of a thousand experiments is a normal run.
    stack = [iter(_branches(children.get(parent, []), indent))]
    while stack:
        try:
            item, lead, below = next(stack[-1])
        except StopIteration:
            stack.pop()
            continue
        yield f"{lead}{_label(item, selected)}"
        stack.append(iter(_branches(children.get(item.loop, []), below)))


def _branches(items: list[Experiment], indent: str) -> list[tuple[Experiment, str, str]]:
    last = len(items) - 1
    return [
        (item, indent + ("└─ " if index == last else "├─ "), indent + ("   " if index == last else "│  "))
        for index, item in enumerate(items)
    ]


def _label(item: Experiment, selected: int | None) -> str:
    unscored = "failed" if item.feedback else "unfinished"
    result = number(item.validation.value) if item.validation else unscored
    mark = " *" if item.loop == selected else ""
    return f"loop {item.loop} {result}{mark}  {shorten(item.hypothesis.title, 70)}"
