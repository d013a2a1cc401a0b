"""Rules by which a trial is stopped early, and the live metrics that they are about. Standard library alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Rules:
    """A file {"metric", "direction", "rungs": [{"step", "needs"}, ...], "rule"}."""

    metric: str
    """Key of the rows; with a minus before it, its negative."""
    maximize: bool
    rungs: tuple[tuple[int, float], ...]
    """(step, what the metric must have reached there), by step."""
    rule: str = ""
    """Where the numbers come from, in words."""


@dataclass(frozen=True)
class Stop:
    """Why a trial is stopped."""

    rules: Rules
    step: int
    """Of the row that decided."""
    value: float
    needs: float

    def sentence(self) -> str:
        """One line for the log."""
        told, rule = self.document(), f" ({self.rules.rule})" if self.rules.rule else ""
        value = "no number" if told["value"] is None else f"{told['value']:g}"
        bound = "at least" if told["direction"] == "maximize" else "at most"
        needed = f"{bound} {told['needs']:g} was needed to go on{rule}"
        return f"stopped at step {self.step}: {told['metric']} is {value}, {needed}"

    def document(self) -> dict[str, Any]:
        """The content of stopped.json, in terms of what the rows hold; a value that is no number is null."""
        negative = self.rules.metric.startswith("-")
        sign = -1 if negative else 1
        return {
            "step": self.step,
            "value": sign * self.value if math.isfinite(self.value) else None,
            "needs": sign * self.needs,
            "metric": self.rules.metric.removeprefix("-"),
            "direction": "maximize" if self.rules.maximize != negative else "minimize",
            "rule": self.rules.rule,
        }


def read_rules(path: Path) -> Rules | None:
    """None where there is no such file, or it does not hold rules: a trial is never lost by a bad rule."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        rungs = [(int(rung["step"]), float(rung["needs"])) for rung in given["rungs"]]
        return Rules(
            str(given["metric"]), given.get("direction", "maximize") != "minimize",
            tuple(sorted(rung for rung in rungs if math.isfinite(rung[1]))), str(given.get("rule", "")),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


class Watcher:
    """Reads rows of live metrics as they are written and applies the rules, each rung once."""

    def __init__(self, rules: Rules | None, folder: Path, metrics: Sequence[str]) -> None:
        self._rules = rules
        self._paths = [folder / name for name in metrics]
        self._rungs = list(rules.rungs) if rules is not None else []
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._torn = b""

    def look(self, last: bool = False) -> Stop | None:
        """What the rows that are new say; `last`: nobody writes any more, so the last row is whole."""
        if self._rules is None:
            return None
        for row in self._rows(last):
            if (stop := self._judge(self._rules, row)) is not None:
                return stop
        return None

    def _judge(self, rules: Rules, row: dict[str, Any]) -> Stop | None:
        try:
            step, value = int(row["step"]), float(row[rules.metric.removeprefix("-")])
        except (KeyError, TypeError, ValueError, OverflowError):
            return None  # a row of other metrics
        value = -value if rules.metric.startswith("-") else value
        while self._rungs and step >= self._rungs[0][0]:
            _, needs = self._rungs.pop(0)
            reached = value >= needs if rules.maximize else value <= needs  # never where it is no number
            if not reached:
                return Stop(rules, step, value, needs)
        return None

    def _rows(self, last: bool) -> Iterator[dict[str, Any]]:
        new = self._read()
        lines = (self._torn + new).split(b"\n")
        self._torn = b"" if last else lines.pop()
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row

    def _read(self) -> bytes:
        for path in self._paths:
            try:
                state = path.stat()
                if (state.st_dev, state.st_ino) != self._file or state.st_size < self._offset:
                    # Written anew: what was judged stays judged.
                    self._file, self._offset, self._torn = (state.st_dev, state.st_ino), 0, b""
                with path.open("rb") as file:
                    file.seek(self._offset)
                    data = file.read()
            except OSError:
                continue
            self._offset += len(data)
            return data
        return b""
