"""What changed between an experiment and its parent."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from ftagent.core.errors import RequestError
from ftagent.core.state import State
from ftagent.core.types import Experiment, Files

_MOST_LINES = 200


def changes(state: State, item: Experiment) -> list[str]:
    """A unified diff against the parent's files; against nothing for a child of the baseline.

    A file that is gone or was changed since it was recorded is told instead of compared.
    """
    parent = item.hypothesis.parent
    before: Files = {}
    if parent is not None and 0 <= parent < len(state.experiments):
        before = state.experiments[parent].files
    name = "baseline" if parent is None else f"loop {parent}"
    lines = list(_lines(before, item.files, name, f"loop {item.loop}"))
    if len(lines) > _MOST_LINES:
        return [*lines[:_MOST_LINES], f"... {len(lines) - _MOST_LINES} lines more"]
    return lines


def _lines(before: Files, after: Files, from_name: str, to_name: str) -> Iterator[str]:
    for path in sorted({*before, *after}):
        try:
            old = before[path].splitlines() if path in before else []
            new = after[path].splitlines() if path in after else []
        except RequestError as error:
            yield f"# {error}"
            continue
        source = f"{from_name}/{path}" if path in before else "/dev/null"
        target = f"{to_name}/{path}" if path in after else "/dev/null"
        yield from difflib.unified_diff(old, new, source, target, lineterm="", n=2)
