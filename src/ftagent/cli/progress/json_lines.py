"""JSON lines for programs: each event, step and training point on stdout; notes too; logs on stderr."""

from __future__ import annotations

import json
from typing import Any, TextIO

from ftagent.cli.progress.losses import training_point
from ftagent.core import events
from ftagent.core.events import Record
from ftagent.core.state import State
from ftagent.core.types import StepName


class JsonLines:
    """`{"event": kind, "loop": …, …}`; the caller adds the `finished` document as the last line."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err

    def open(self) -> None: ...

    def close(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def begin(self, state: State) -> None:
        self._write({"event": "session", "run": str(state.path), "loops": len(state.experiments)})

    def event(self, record: Record) -> None:
        # The finished document is the last line; the journal's own mark of it would be mistaken for that.
        if not isinstance(record.event, events.Finished):
            self._write(document(record))

    def step(self, loop: int | None, step: StepName | None, stage: str) -> None:
        self._write({"event": "step", "loop": loop, "step": step, "stage": stage})

    def line(self, loop: int | None, stage: str, text: str) -> None:
        if point := training_point(text):
            self._write({"event": "loss", "loop": loop, "stage": stage, "step": point[0], "loss": point[1]})

    def note(self, text: str) -> None:
        self._write({"event": "note", "text": text})

    def log(self, text: str) -> None:
        self._err.write(text + "\n")
        self._err.flush()

    def finish(self, finished: dict[str, Any]) -> None:
        """The last line."""
        self._write(finished)

    def _write(self, line: dict[str, Any]) -> None:
        self._out.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._out.flush()


def document(record: Record) -> dict[str, Any]:
    """A journal record as one flat object; scores as the `S` of CLI.md, file contents and outcomes left out."""
    from dataclasses import asdict

    event = record.event
    head = {"event": record.kind, "loop": getattr(event, "loop", None), "at": record.at, "elapsed": record.elapsed}
    match event:
        case events.Scored():
            return {**head, "split": event.split, "score": event.score.summary()}
        case events.StageFinished():
            done = event.execution
            stage = {"stage": done.stage, "end": done.end, "seconds": done.seconds, "exit_code": done.exit_code}
            place = {"purpose": event.purpose, "split": event.split, "attempt": event.attempt}
            return {**head, **place, **stage, "peak_mb": done.peak_mb, "detail": done.detail}
        case _:
            return {**head, **{key: value for key, value in asdict(event).items() if key != "loop"}}
