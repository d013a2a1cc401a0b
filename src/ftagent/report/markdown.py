"""The report of a run as markdown. It tells what the journal says and computes no score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftagent.core.run_folder import RunFolder
from ftagent.core.state import State
from ftagent.core.types import Experiment
from ftagent.report import model_calls, sections
from ftagent.report.diff import changes
from ftagent.report.markup import block, plain, table
from ftagent.report.text import SPLITS, clock, plural, score_text
from ftagent.report.tree import tree_lines
from ftagent.report.usage import how_to_use

_MOST_DIFFS = 20


def report_markdown(folder: RunFolder, state: State, record: dict[str, Any], figures: list[Path]) -> str:
    """The whole report. `record` is run.json; `figures` lie inside the run folder."""
    parts = [
        [f"# {plain(sections.title(state, record))}", ""],
        sections.headline(state),
        _use(folder, state),
        _scores(state, figures, folder.path),
        _loops(state),
        _tree(state),
        _losses(figures, folder.path),
        _changes(state),
        sections.honesty(state),
        model_calls.section(state),
        sections.spent(state),
        sections.circumstances(folder, state, record),
    ]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _use(folder: RunFolder, state: State) -> list[str]:
    if state.selected is None or state.selected.loop is None:
        return []
    return ["## What to do with the result", "", *how_to_use(folder, state)]


def _scores(state: State, figures: list[Path], run: Path) -> list[str]:
    selected = state.selected.loop if state.selected else None
    chosen = state.experiments[selected].scores if selected is not None else {}
    rows = []
    for split in SPLITS:
        base, best = state.baseline_scores.get(split), chosen.get(split)
        if base is None and best is None and split == "confirm":
            continue
        count = base or best
        difference = f"{best.value - base.value:+.3f}" if best and base else "-"
        row = [split, score_text(base), score_text(best) if selected is not None else "-", difference]
        rows.append([*row, str(count.n) if count else "-"])
    name = f"loop {selected}" if selected is not None else "best"
    metric = plain(state.created.metric) if state.created else "score"
    lines = ["## Scores", "", f"{metric}, with 95 % intervals.", ""]
    lines += table(["split", "baseline", name, "difference", "items"], rows)
    return lines + _image(figures, run, "scores.svg", "Score of each loop with its 95 % interval")


def _image(figures: list[Path], run: Path, name: str, text: str) -> list[str]:
    return [f"![{text}]({path.relative_to(run).as_posix()})" for path in figures if path.name == name] + [""]


def _loops(state: State) -> list[str]:
    rows = [_row(item) for item in state.experiments]
    if not rows:
        return ["## Loops", "", "No loop was started.", ""]
    header = ["loop", "from", "hypothesis", "validation", "decision", "reason", "time"]
    return ["## Loops", "", *table(header, rows)]


def _row(item: Experiment) -> list[str]:
    parent = item.hypothesis.parent
    said = item.feedback
    return [
        str(item.loop),
        "baseline" if parent is None else f"loop {parent}",
        plain(item.hypothesis.title),
        score_text(item.validation),
        said.decision if said else f"stopped after {item.last_step}",
        plain(item.failure or (said.reason if said else "")),
        clock(item.seconds),
    ]


def _tree(state: State) -> list[str]:
    if not state.experiments:
        return []
    return ["## Experiment tree", "", *block(tree_lines(state)), "`*` marks what was selected.", ""]


def _losses(figures: list[Path], run: Path) -> list[str]:
    image = _image(figures, run, "losses.svg", "Training loss of the experiments")
    return ["## Training loss", "", *image] if len(image) > 1 else []


def _changes(state: State) -> list[str]:
    if not state.experiments:
        return []
    lines = ["## What changed", ""]
    selected = state.selected.loop if state.selected else None
    shown = [item for item in state.experiments if item.loop == selected]
    shown += [item for item in state.experiments if item.loop != selected]
    for item in sorted(shown[:_MOST_DIFFS], key=lambda item: item.loop):
        parent = item.hypothesis.parent
        of = "the baseline" if parent is None else f"loop {parent}"
        lines += [f"### Loop {item.loop} against {of}", "", plain(item.hypothesis.reason), ""]
        lines += block(changes(state, item) or ["no file differs"], "diff")
    if len(shown) > _MOST_DIFFS:
        lines += [f"{plural(len(shown) - _MOST_DIFFS, 'loop')} more: `ftagent show RUN --loop N`.", ""]
    return lines
