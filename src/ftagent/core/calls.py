"""Replies of language models in a run: each is on disk before it is used, and a step that asks again gets it back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from ftagent.core import events
from ftagent.core.errors import RequestError
from ftagent.core.files import atomic_write, storage_error
from ftagent.core.run_folder import RunFolder
from ftagent.core.session import Session
from ftagent.core.types import CallPlace

Document = dict[str, Any]
"""A transcript: what was asked and what was replied, as plain JSON without times: a replay gives equal bytes."""


class Calls:
    """Between a client of language models and the run it works for. Without a session it keeps nothing."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._given: dict[tuple[CallPlace, str], int] = {}
        self._spent_elsewhere = 0.0

    def open(self, session: Session) -> None:
        """Work for `session` from now on."""
        self._session = session
        self._given.clear()

    @property
    def spent_usd(self) -> float:
        """All dollars of the run so far."""
        return self._spent_elsewhere + (self._session.state.cost_usd if self._session else 0.0)

    @property
    def cap_usd(self) -> float | None:
        """`--budget-usd`; None without one."""
        return self._session.state.limits.budget_usd if self._session else None

    def find(self, place: CallPlace, request: str) -> Document | None:
        """The recorded answer to `request` (SHA-256), each one once and in order; None when it has to be asked for.

        Raises RequestError when a recorded transcript is gone or is not what was recorded.
        """
        if self._session is None:
            return None
        given = self._given.get((place, request), 0)
        same = [call for call in self._session.state.calls.get(place, ()) if call.request == request]
        if given >= len(same):
            return None
        self._given[place, request] = given + 1
        return read_transcript(self._session.folder, same[given])

    def keep(self, called: events.Called, document: Document) -> None:
        """Write the transcript, then journal the call; its index and digest are filled in. Raises StorageFull."""
        if self._session is None:
            self._spent_elsewhere += called.cost_usd or 0.0
            return
        place = CallPlace(called.loop, called.step, called.attempt)
        called = replace(called, index=len(self._session.state.calls.get(place, ())))
        text = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
        path = transcript_path(self._session.folder, called)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(path.parent, error) or error from error
        atomic_write(path, text, durable=True)
        # Whoever asks for it again in this session wants a new one: it was given out when it was made.
        self._given[place, called.request] = self._given.get((place, called.request), 0) + 1
        self._session.record(replace(called, transcript=hashlib.sha256(text).hexdigest()))


def transcript_path(folder: RunFolder, called: events.Called) -> Path:
    """Where the transcript of a call lies."""
    step = folder.path / "baseline" if called.loop is None else folder.step(called.loop, called.step)
    return step / "transcript" / f"{called.attempt}.{called.index}_{called.role}.json"


def read_transcript(folder: RunFolder, called: events.Called) -> Document:
    """The document of a recorded call. Raises RequestError when it is gone or changed."""
    path = transcript_path(folder, called)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: a recorded transcript cannot be read ({error.strerror})") from error
    if hashlib.sha256(text).hexdigest() != called.transcript:
        raise RequestError(f"{path}: changed since it was recorded")
    document: Document = json.loads(text)
    return document
