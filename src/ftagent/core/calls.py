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
from ftagent.core.state import State
from ftagent.core.types import CallPlace

Document = dict[str, Any]
"""A transcript: what was asked and what was replied, as plain JSON without times: a replay gives equal bytes."""


class Calls:
    """Between a client of language models and the run it works for. Without a session it keeps nothing."""

    def __init__(self, *, reuses: bool = True) -> None:
        """`reuses` False: answers of other places are left alone. In a replay each place has its own."""
        self._reuses = reuses
        self._session: Session | None = None
        self._given: dict[tuple[CallPlace, str], int] = {}
        self._spent_elsewhere = 0.0
        self._index = _Index()

    def open(self, session: Session) -> None:
        """Work for `session` from now on."""
        self._session = session
        self._given.clear()
        self._index = _Index()

    @property
    def spent_usd(self) -> float:
        """All dollars of the run so far."""
        return self._spent_elsewhere + (self._session.state.cost_usd if self._session else 0.0)

    @property
    def cap_usd(self) -> float | None:
        """`--budget-usd`; None without one."""
        return self._session.state.limits.budget_usd if self._session else None

    def find(self, place: CallPlace, *requests: str) -> Document | None:
        """The recorded answer to `requests` (SHA-256), each one once and in order; None when it has to be asked for.

        With several requests any of them will do. Raises RequestError when a recorded transcript is gone or is not
        what was recorded.
        """
        if self._session is None:
            return None
        self._index.follow(self._session.state)
        here = [
            same[given]
            for request in dict.fromkeys(requests)
            if (given := self._given.get((place, request), 0)) < len(same := self._index.here(place, request))
        ]
        if not here:
            return None
        call = min(here, key=lambda call: call.index)
        self._give(place, call.request)
        return read_transcript(self._session.folder, call)

    def reuse(self, place: CallPlace, role: str, *requests: str) -> Document | None:
        """As `find`, from other places of the run where `role` asked the same, each answer once at this place.

        What is found is kept for `place` too, free of charge. Raises what `find` and `keep` raise.
        """
        if self._session is None or not self._reuses:
            return None
        self._index.follow(self._session.state)
        for request in requests:
            taken = sum(call.requests == 0 for call in self._index.here(place, request))
            paid = [call for call in self._index.paid(role, request) if _place(call) != place]
            if taken < len(paid):
                document = read_transcript(self._session.folder, paid[taken])
                document |= {"place": msgspec.to_builtins(place), "cost_usd": 0.0}
                again = replace(
                    paid[taken], loop=place.loop, step=place.step, attempt=place.attempt, cost_usd=0.0, requests=0,
                    prompt_tokens=0, completion_tokens=0, reasoning_tokens=0, cached_tokens=0, seconds=0.0,
                )  # fmt: skip
                self.keep(again, document)
                return document
        return None

    def start_over(self, place: CallPlace, role: str) -> None:
        """Whoever asked as `role` at `place` begins anew: recorded answers are found again from the first."""
        if self._session is not None:
            for call in self._session.state.calls.get(place, ()):
                if call.role == role:
                    self._given.pop((place, call.request), None)

    def keep(self, called: events.Called, document: Document) -> None:
        """Write the transcript, then journal the call; its index and digest are filled in. Raises StorageFull."""
        if self._session is None:
            self._spent_elsewhere += called.cost_usd or 0.0
            return
        place = _place(called)
        called = replace(called, index=len(self._session.state.calls.get(place, ())))
        text = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
        path = transcript_path(self._session.folder, called)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(path.parent, error) or error from error
        atomic_write(path, text, durable=True)
        # Whoever asks for it again in this session wants a new one: it was given out when it was made.
        self._give(place, called.request)
        self._session.record(replace(called, transcript=hashlib.sha256(text).hexdigest()))

    def _give(self, place: CallPlace, request: str) -> None:
        self._given[place, request] = self._given.get((place, request), 0) + 1


class _Index:
    """The calls of a state by request: scripts ask tens of thousands of times."""

    def __init__(self) -> None:
        self._state: State | None = None

    def follow(self, state: State) -> None:
        """Take in what is new in `state`; all of it when it is another one."""
        if state is not self._state:
            self._state = state
            self._seen: dict[CallPlace, int] = {}
            self._here: dict[tuple[CallPlace, str], list[events.Called]] = {}
            self._paid: dict[tuple[str, str], list[events.Called]] = {}
        for place, calls in state.calls.items():
            seen = self._seen.get(place, 0)
            if seen < len(calls):
                self._take(place, calls[seen:])
                self._seen[place] = len(calls)

    def _take(self, place: CallPlace, calls: list[events.Called]) -> None:
        for call in calls:
            self._here.setdefault((place, call.request), []).append(call)
            if call.requests:
                self._paid.setdefault((call.role, call.request), []).append(call)

    def here(self, place: CallPlace, request: str) -> list[events.Called]:
        """Answers to `request` at `place`, in order."""
        return self._here.get((place, request), [])

    def paid(self, role: str, request: str) -> list[events.Called]:
        """Answers to `request` of `role` that were asked for, not taken from elsewhere, of all places."""
        return self._paid.get((role, request), [])


def _place(call: events.Called) -> CallPlace:
    return CallPlace(call.loop, call.step, call.attempt)


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
