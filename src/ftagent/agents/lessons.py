"""What a finished experiment teaches: task, change, effect on validation, failure and what mended it.

Nothing of the `confirm` and `test` splits is looked at: what is stored here is read by agents of later runs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unicodedata import category

from ftagent.core.check import static_check
from ftagent.core.errors import RequestError
from ftagent.core.executor import describe
from ftagent.core.run_folder import RunFolder
from ftagent.core.state import State
from ftagent.core.statistics import paired_difference
from ftagent.core.types import Direction, Experiment, Files, Score

_LONGEST = {"title": 200, "changes": 300, "failure": 240, "fix": 300}
_MOST_CHANGES = 8
_DIFF_LINES = 4
_DIFF_WIDTH = 90
_FILE_BYTES = 200_000
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(frozen=True)
class Task:
    """What was improved. Lessons of the same task come before all others."""

    scenario: str
    benchmark: str = ""
    base_model: str = ""

    def __str__(self) -> str:
        what = self.benchmark or self.scenario
        return f"{what} with {self.base_model}" if self.base_model else what


def task_of(request: Mapping[str, Any]) -> Task:
    """The task of a run from `request` of its run.json."""
    return Task(*(one_line(str(request.get(key) or ""), 200) for key in ("scenario", "benchmark", "base_model")))


@dataclass(frozen=True)
class Effect:
    """Difference of validation means, after minus before, with its 95 % interval over `n` paired items."""

    metric: str
    direction: Direction
    against: str
    """`the baseline` or `loop N`."""
    difference: float
    low: float
    high: float
    n: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return not self.low <= 0.0 <= self.high

    def text(self) -> str:
        better = (self.difference > 0) == (self.direction == "maximize")
        verdict = ("better" if better else "worse") if self.clear else "no clear difference"
        return (
            f"{self.metric} {self.difference:+.3f} against {self.against} "
            f"(95 % interval {self.low:+.3f} to {self.high:+.3f}, {self.n} validation items): {verdict}"
        )


@dataclass(frozen=True)
class Lesson:
    """One finished experiment. Every text is one bounded line; agents and commands wrote parts of it."""

    task: Task
    run: str
    loop: int
    title: str
    changes: str = ""
    """Parameters against the parent, `steps 10 -> 20, rank 8`."""
    effect: Effect | None = None
    failure: str = ""
    fix: str = ""
    """What mended `failure`; empty where nothing did."""

    @property
    def informative(self) -> bool:
        """Whether it says more than that something made no difference."""
        return bool(self.fix or self.failure or (self.effect and self.effect.clear))

    def change(self) -> str:
        return f"{self.title} ({self.changes})" if self.changes else self.title

    def text(self) -> str:
        """One line for a prompt or a list."""
        said = [self.effect.text()] if self.effect else []
        if self.failure:
            said.append(
                f"failed at first, {self.failure}; mended by {self.fix}" if self.fix else f"failed, {self.failure}"
            )
        return f"{self.task}, run {self.run} loop {self.loop}: {self.change()}: {'; '.join(said) or 'no score'}"

    def words(self) -> str:
        """What it is found by."""
        parts = (self.task.scenario, self.task.benchmark, self.task.base_model, self.title, self.changes)
        return " ".join((*parts, self.failure, self.fix))


def lessons_of(state: State, task: Task, run: str) -> list[Lesson]:
    """A lesson for each loop that is complete and tried something."""
    return [
        _lesson(state, item, task, run)
        for item in state.experiments
        if state.complete(item.loop) and not item.hypothesis.abandoned
    ]


def one_line(text: str, width: int) -> str:
    """`text` without control characters and line breaks, at most `width` characters."""
    start = _ESCAPE.sub("", text[: 8 * width])
    kept = "".join(" " if category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else char for char in start)
    line = " ".join(kept.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def _lesson(state: State, item: Experiment, task: Task, run: str) -> Lesson:
    failure, fix = (item.failure, "") if item.failure else _mended(state, item)
    return Lesson(
        task,
        one_line(run, 100),
        item.loop,
        one_line(item.hypothesis.title, _LONGEST["title"]),
        one_line(_changes(state, item), _LONGEST["changes"]),
        _effect(state, item),
        one_line(failure, _LONGEST["failure"]),
        one_line(fix, _LONGEST["fix"]),
    )


def _parent(state: State, item: Experiment) -> Experiment | None:
    parent = item.hypothesis.parent
    return state.experiments[parent] if parent is not None and 0 <= parent < item.loop else None


def _changes(state: State, item: Experiment) -> str:
    parent = _parent(state, item)
    before: Mapping[str, Any] = parent.hypothesis.params if parent else {}
    said = [
        f"{name} {before[name]} -> {value}" if name in before else f"{name} {value}"
        for name, value in sorted(item.hypothesis.params.items())
        if name not in before or before[name] != value
    ]
    more = len(said) - _MOST_CHANGES
    return ", ".join([*said[:_MOST_CHANGES], *([f"and {more} more"] if more > 0 else [])])


def _effect(state: State, item: Experiment) -> Effect | None:
    score, parent = item.validation, _parent(state, item)
    if score is None:
        return None
    rivals: list[tuple[str, Score | None]] = [("the baseline", state.baseline_scores.get("validation"))]
    if parent is not None:
        rivals.insert(0, (f"loop {parent.loop}", parent.validation))
    for name, before in rivals:
        if before is None:
            continue
        try:
            difference, (low, high), n = paired_difference(before, score)
        except ValueError:
            continue
        return Effect(one_line(score.metric, 60), score.direction, name, difference, low, high, n)
    return None


def _mended(state: State, item: Experiment) -> tuple[str, str]:
    """The last failure on the way to a working experiment, and what mended it; empty texts where nothing failed."""
    if item.attempts > 1:
        before = _attempt(state, item, item.attempts - 2)
        failed = [
            record.execution
            for record in item.stages
            if record.purpose == "debug" and record.attempt == item.attempts - 2 and not record.execution.ok
        ]
        failure = failed[-1] if failed else static_check(before)
        return (describe(failure) if failure else "its rehearsal failed"), _difference(before, _final(item))
    parent = _parent(state, item)
    if parent is not None and parent.failure and item.hypothesis.kind == "debug":
        return f"loop {parent.loop}: {parent.failure}", item.hypothesis.title
    return "", ""


def _attempt(state: State, item: Experiment, attempt: int) -> Files:
    """The files of an earlier attempt as far as they can be read."""
    folder = RunFolder(state.path).attempt(item.loop, attempt)
    files = {}
    for name in item.files:
        path = folder / name
        try:
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= _FILE_BYTES:
                files[name] = path.read_text(errors="replace")
        except OSError:
            continue  # a lesson without this file's difference is still one
    return files


def _final(item: Experiment) -> Files:
    try:
        return {name: item.files[name] for name in item.files}
    except RequestError:
        return {}


def _difference(before: Files, after: Files) -> str:
    """Names of the files that differ, and the first lines that do."""
    changed = [name for name in sorted(after) if after[name] != before.get(name)]
    lines = [
        one_line(line, _DIFF_WIDTH)
        for name in changed
        if name in before
        for line in difflib.unified_diff(before[name].splitlines(), after[name].splitlines(), lineterm="", n=0)
        if re.match(r"[-+](?![-+]{2} )\s*\S", line)
    ]
    if not changed:
        return "a change of its files"
    shown = " / ".join(lines[:_DIFF_LINES])
    return f"a change of {', '.join(changed[:4])}" + (f": {shown}" if shown else "")
