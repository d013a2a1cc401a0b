"""What a training shows: a live region on a terminal, lines elsewhere, nothing where a program reads."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ftagent.cli.progress.region import Region
from ftagent.report.text import clock, sparkline

_SECONDS_BETWEEN_LINES = 10.0
_POINTS = 2000
_BAR = 30
_LABEL = 11


class TrainingDisplay(Protocol):
    """Shows records of `ftagent.toolkit.train` and log lines."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def record(self, record: dict[str, Any]) -> None: ...

    def log(self, text: str) -> None: ...


def choose_training_display(as_json: bool) -> TrainingDisplay:
    """By where the output goes."""
    if as_json:
        return SilentTraining()
    return LiveTraining() if sys.stdout.isatty() else PlainTraining()


class Curve:
    """What the lines of a training amount to so far."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.step = 0
        self.steps = 0
        self.tokens = 0
        self.all_tokens = 0
        self.validation: tuple[float, bool] | None = None
        self._points: list[tuple[float, int]] = []

    def add(self, record: dict[str, Any]) -> None:
        """Take in a record."""
        if record.get("event") == "data":
            self.steps, self.all_tokens = record["steps"], record["tokens"]
        if "event" in record or "step" not in record:
            return
        self.step, self.tokens = record["step"], record["tokens"]
        self._points = [*self._points, (record["seconds"], self.tokens)][-20:]
        if "validation_loss" in record:
            self.validation = (record["validation_loss"], record.get("best", False))
        if "loss" in record:
            self.losses.append(record["loss"])
            if len(self.losses) > _POINTS:
                self.losses = self.losses[::2]

    @property
    def tokens_per_second(self) -> float:
        """Over the last lines; 0 before there are two."""
        if len(self._points) < 2:
            return 0.0
        (start, before), (end, after) = self._points[0], self._points[-1]
        return (after - before) / (end - start) if end > start else 0.0

    def pace(self) -> str:
        """Speed and time left, as text."""
        speed = self.tokens_per_second
        if not speed:
            return ""
        left = f"   {clock((self.all_tokens - self.tokens) / speed)} left" if self.tokens < self.all_tokens else ""
        return f"{speed:,.0f} tokens/s{left}"


class SilentTraining:
    """For `--json`: log lines go to stderr, where a program that reads stdout does not see them."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def record(self, record: dict[str, Any]) -> None: ...

    def log(self, text: str) -> None:
        sys.stderr.write(text + "\n")


class PlainTraining:
    """One line every few seconds, and each log line."""

    def __init__(self) -> None:
        self._curve = Curve()
        self._next = 0.0

    def open(self) -> None: ...

    def close(self) -> None: ...

    def record(self, record: dict[str, Any]) -> None:
        curve = self._curve
        curve.add(record)
        if "loss" not in record or (time.monotonic() < self._next and curve.step != curve.steps):
            return
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
        self.log(f"step {curve.step} of {curve.steps}   loss {curve.losses[-1]:.4f}   {curve.pace()}".rstrip())

    def log(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


class LiveTraining:
    """Loss curve, progress, speed and time left, redrawn four times a second; log lines scroll by above."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._curve = Curve()
        self._started = time.monotonic()
        self._region = Region(self._console, self._render, "training display")

    def open(self) -> None:
        self._region.open()

    def close(self) -> None:
        self._region.close()

    def record(self, record: dict[str, Any]) -> None:
        with self._region.lock:
            self._curve.add(record)

    def log(self, text: str) -> None:
        with self._region.lock:
            self._console.print(Text.from_ansi(text))

    def _render(self) -> Any:
        curve, width = self._curve, self._console.width
        elapsed = clock(time.monotonic() - self._started)
        if not curve.losses:
            what = "preparing" if not curve.steps else f"{curve.steps} steps, {curve.all_tokens:,} tokens"
            return Text(f"{what}  {elapsed}", style="dim")
        table = Table.grid(padding=(0, 1))
        table.add_column(width=_LABEL, style="dim", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", width=max(20, width - _LABEL - 2))
        table.add_row("loss", _losses(curve, width - _LABEL - 2))
        if curve.validation is not None:
            value, best = curve.validation
            table.add_row("validation", Text(f"{value:.4f}{', the best so far' if best else ''}"))
        table.add_row("step", _bar(curve.step, curve.steps))
        table.add_row("pace", Text(f"{curve.pace()}   {elapsed} so far".strip()))
        return Group(Text("─" * min(width, 100), style="dim"), table)


def _losses(curve: Curve, width: int) -> Text:
    text = Text(sparkline(curve.losses, max(8, min(60, width - 24))), style="cyan")
    text.append(f"  {curve.losses[0]:.3f} → {curve.losses[-1]:.3f}", style="default")
    return text


def _bar(done: int, total: int) -> Text:
    filled = round(_BAR * done / max(1, total))
    text = Text("━" * filled, style="cyan")
    text.append("━" * (_BAR - filled), style="dim")
    text.append(f"  {done} of {total}", style="default")
    return text
