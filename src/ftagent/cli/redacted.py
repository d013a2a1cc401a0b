"""Between a run and who watches it: texts without secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftagent.core.events import Record
    from ftagent.core.observer import Observer
    from ftagent.core.state import State
    from ftagent.core.types import StepName
    from ftagent.settings import Settings


class Redacted:
    """An Observer that passes everything on, notes and printed lines without secrets."""

    def __init__(self, observer: Observer, redact: Callable[[str], str]) -> None:
        self._observer = observer
        self._redact = redact

    def begin(self, state: State) -> None:
        self._observer.begin(state)

    def event(self, record: Record) -> None:
        self._observer.event(record)

    def step(self, loop: int | None, step: StepName | None, stage: str) -> None:
        self._observer.step(loop, step, stage)

    def line(self, loop: int | None, stage: str, text: str) -> None:
        self._observer.line(loop, stage, self._redact(text))

    def note(self, text: str) -> None:
        self._observer.note(self._redact(text))


def redaction(settings: Settings) -> Callable[[str], str]:
    """What takes the secrets of these settings out of a text."""
    from ftagent.llm.redaction import Redactor, secrets_of

    return Redactor(secrets_of(settings)).redact
