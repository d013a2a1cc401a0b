"""The live display on a terminal: what happened scrolls by, what is happening stays below it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ftagent.cli.progress.losses import items_done, training_point
from ftagent.cli.progress.region import Region
from ftagent.cli.progress.sentences import greeting, sentence
from ftagent.core.events import Finished, Record
from ftagent.core.state import State
from ftagent.core.types import Score, StepName
from ftagent.report.text import clean, clock, dollars, score_text, shorten, sparkline
from ftagent.report.views import leader

_SHOWN = 4
_POINTS = 2000
_BAR = 30
_LABEL = 11
_VERDICT_STYLES = {"accept": "green", "reject": "yellow", "failed": "red"}


@dataclass
class Activity:
    """What one loop (None: the baseline, or the finish) is doing."""

    step: StepName | None
    stage: str
    since: float
    losses: list[float] = field(default_factory=list)
    at: int = 0
    done: tuple[int, int] | None = None
    last: str = ""


class LiveDisplay:
    """Redrawn four times a second from the run's live state. Safe to call from any thread."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._guard = threading.RLock()
        self._state: State | None = None
        self._base_elapsed = 0.0
        self._started = time.monotonic()
        self._activities: dict[int | None, Activity] = {}
        self._waiting: list[Text] | None = None
        """What is printed once the display is resumed; None while it is not paused."""
        # It may ask for its first picture at once, so everything above must be there.
        self._region = Region(self._console, self._render, "live display")

    def open(self) -> None:
        self._region.open()

    def close(self) -> None:
        self._region.close()

    def pause(self) -> None:
        self._waiting = []
        self._region.hide()

    def resume(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        self._region.show()
        for text in waiting:
            self._say(text)

    def begin(self, state: State) -> None:
        with self._guard:
            self._state, self._base_elapsed, self._started = state, state.elapsed, time.monotonic()
        for line in greeting(state):
            self._say(Text(line, style="bold" if line.startswith("run ") else ""))

    def event(self, record: Record) -> None:
        with self._guard:
            state = self._state
            loop = getattr(record.event, "loop", None)
            if record.kind in {"built", "ran", "reflected"} or (record.kind == "scored" and loop is None):
                self._activities.pop(loop, None)
            if isinstance(record.event, Finished):
                self._activities.clear()
        if state is not None and (line := sentence(record, state)):
            self._say(_styled(line, record))

    def step(self, loop: int | None, step: StepName | None, stage: str) -> None:
        with self._guard:
            self._activities[loop] = Activity(step, stage, time.monotonic())

    def line(self, loop: int | None, stage: str, text: str) -> None:
        point, done = training_point(text), items_done(text)
        with self._guard:
            activity = self._activities.get(loop)
            if activity is None:
                return
            if done is not None:
                activity.done = done
                return
            if point is None:
                activity.last = text[:500]
                return
            activity.at = point[0]
            activity.losses.append(point[1])
            if len(activity.losses) > _POINTS:
                activity.losses = activity.losses[::2]

    def note(self, text: str) -> None:
        self._say(Text(f"note: {clean(text)}", style="yellow"))

    def log(self, text: str) -> None:
        self._say(Text.from_ansi(text))

    def _say(self, text: Text) -> None:
        """Print above the live region; a resized terminal wraps it like any other text."""
        with self._region.lock:
            if self._waiting is None:
                self._console.print(text)
            else:
                self._waiting.append(text)

    def _render(self) -> Any:
        with self._guard:
            state, activities = self._state, dict(self._activities)
            if state is None or state.created is None:
                return Text(f"preparing  {clock(time.monotonic() - self._started)}", style="dim")
            width = self._console.width
            rows = [*self._doing(activities, width), *_scores(state), *self._budget(state)]
        table = Table.grid(padding=(0, 1))
        table.add_column(width=_LABEL, style="dim", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", width=max(20, width - _LABEL - 2))
        for label, content in rows:
            table.add_row(label, content)
        return Group(Text("─" * min(width, 100), style="dim"), table)

    def _doing(self, activities: dict[int | None, Activity], width: int) -> Iterator[tuple[str, Text]]:
        now = time.monotonic()
        ordered = sorted(activities.items(), key=lambda item: -1 if item[0] is None else item[0])
        for loop, activity in ordered[-_SHOWN:]:
            label = f"loop {loop}" if loop is not None else ("finish" if activity.step is None else "baseline")
            parts = [part for part in (activity.step, activity.stage) if part and part != label]
            text = Text(f"{' · '.join(parts) or 'starting'}", style="bold")
            text.append(f"  {clock(now - activity.since)}", style="not bold dim")
            yield label, text
            if activity.losses:
                yield "loss", _curve(activity, width - _LABEL - 2)
            if activity.done:
                yield "items", _bar(*activity.done)
            elif activity.last and not activity.losses:
                yield "", Text(shorten(activity.last, width - _LABEL - 2), style="dim")

    def _budget(self, state: State) -> Iterator[tuple[str, Text]]:
        limits = state.limits
        elapsed = max(state.elapsed, self._base_elapsed + time.monotonic() - self._started)
        parts = [
            _spent("loops", str(_loops_done(state)), None if limits.loop_n is None else str(limits.loop_n)),
            _spent("steps", str(state.steps_done), None if limits.step_n is None else f"{limits.step_n} more"),
            _spent("time", clock(elapsed), None if limits.timeout is None else clock(limits.timeout)),
            f"cost {dollars(state.cost_usd, state.unpriced_calls, limits.budget_usd)}",
        ]
        yield "budget", Text("   ".join(parts))


def _loops_done(state: State) -> int:
    return sum(item.last_step == "feedback" for item in state.experiments)


def _spent(name: str, spent: str, limit: str | None) -> str:
    return f"{name} {spent}" if limit is None else f"{name} {spent} of {limit}"


def _curve(activity: Activity, width: int) -> Text:
    losses = activity.losses
    bars = sparkline(losses, max(8, min(40, width - 34)))
    text = Text(bars, style="cyan")
    text.append(f"  {losses[0]:.3f} → {losses[-1]:.3f}  step {activity.at}", style="default")
    return text


def _bar(done: int, total: int) -> Text:
    filled = round(_BAR * done / total)
    text = Text("━" * filled, style="cyan")
    text.append("━" * (_BAR - filled), style="dim")
    text.append(f"  {done} of {total}", style="default")
    return text


def _scores(state: State) -> Iterator[tuple[str, Text]]:
    metric = state.created.metric if state.created else "score"
    base = state.baseline_scores.get("validation")
    yield "baseline", Text(f"{metric} {score_text(base, items=True)}" if base else "not measured yet")
    top = leader(state)
    if top is None or top.validation is None:
        return
    text = Text(f"{metric} {score_text(top.validation, items=True)}, loop {top.loop}")
    if base:
        text.append(f"\n{_apart(top.validation, base)}", style="dim")
    yield "best so far", text


def _apart(score: Score, base: Score) -> str:
    low, high = (base, score) if base.value <= score.value else (score, base)
    if score.statistic == "runs" and min(score.n, base.n) == 1:
        return f"{score.value - base.value:+.3f}, noise unknown"
    overlap = "intervals overlap" if low.ci95[1] >= high.ci95[0] else "intervals apart"
    return f"{score.value - base.value:+.3f}, {overlap}"


def _styled(line: str, record: Record) -> Text:
    text = Text(line)
    feedback = getattr(record.event, "feedback", None)
    if feedback is not None:
        text.stylize(_VERDICT_STYLES[feedback.decision])
    elif getattr(record.event, "failure", ""):
        text.stylize("red")
    elif record.kind == "selected":
        text.stylize("bold")
    return text
