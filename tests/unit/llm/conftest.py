"""A client over a scripted model, in a real run folder with a real journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftagent.core import events
from ftagent.core.calls import Calls
from ftagent.core.events import Limits
from ftagent.core.observer import Silent
from ftagent.core.run_folder import RunFolder
from ftagent.core.session import Session
from ftagent.llm.cache import ReplyCache
from ftagent.llm.client import ChatClient, ClientOptions
from ftagent.llm.redaction import Redactor
from ftagent.llm.retry import RetryPolicy
from ftagent.llm.scripted import ScriptedBackend
from ftagent.llm.types import ROLES, Backend, ChatReply, ChatRequest, ModelChoice, Price

MODEL = "scripted/model.yaml"


class Counting(ScriptedBackend):
    """Counts the requests and keeps them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.requests: list[ChatRequest] = []
        self.embedded: list[list[str]] = []
        self.in_flight = self.most_in_flight = 0

    async def complete(self, request: ChatRequest) -> ChatReply:
        self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await super().complete(request)
        finally:
            self.in_flight -= 1

    async def embed(self, choice: ModelChoice, texts: Any) -> Any:
        self.embedded.append(list(texts))
        return await super().embed(choice, texts)


@dataclass
class World:
    """A run of its own: `open` resumes it, as a new process would."""

    folder: Path
    backend: Counting
    budget: float | None = None
    notes: list[str] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)

    @property
    def session(self) -> Session:
        return self.sessions[-1]

    @property
    def called(self) -> list[events.Called]:
        return [record.event for record in self.session.journal.records if isinstance(record.event, events.Called)]

    def transcripts(self) -> dict[str, bytes]:
        run = self.folder / "run"
        return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("transcript/*.json"))}

    def open(self, **changes: Any) -> ChatClient:
        """A client in a new session of the run."""
        if self.sessions:
            self.session.close()
        (self.folder / "run").mkdir(exist_ok=True)
        session = Session(RunFolder(self.folder / "run"), Silent())
        self.sessions.append(session)
        if session.state.created is None:
            session.record(events.Created("noop", "accuracy", "maximize", 0, Limits(budget_usd=self.budget), True))
        calls = Calls()
        calls.open(session)
        return client(self.backend, calls, self.folder, self.notes.append, **changes)


def client(
    backend: Backend,
    calls: Calls,
    folder: Path,
    note: Callable[[str], None],
    *,
    secrets: tuple[str, ...] = (),
    choice: ModelChoice | None = None,
    read: bool = False,
    write: bool = False,
    retries: int = 3,
    prices: dict[str, Price] | None = None,
    **options: Any,
) -> ChatClient:
    cache = folder / "cache" / "llm.sqlite"
    settings = ClientOptions(
        policy=RetryPolicy(retries, 0.0), policies={}, prices=prices or {},
        embedding=ModelChoice("scripted/embedding"), **options,
    )  # fmt: skip
    return ChatClient(
        backend, dict.fromkeys(ROLES, choice or ModelChoice(MODEL)), calls, settings, note=note,
        redactor=Redactor(secrets), replies=ReplyCache(cache, read, write, note),
        vectors=ReplyCache(cache, read, write, note),
    )  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """`world(replies, budget=…, prices=…)`: a run whose model says `replies`."""
    made: list[World] = []

    def make(replies: list[dict[str, Any]], budget: float | None = None, **script: Any) -> World:
        path = tmp_path / "model.yaml"
        for number, reply in enumerate(replies):
            if len(reply.get("text", "")) > 10_000:  # YAML takes seconds for megabytes
                (tmp_path / f"reply_{number}.md").write_text(reply["text"])
                replies[number] = {**reply, "text": None, "file": f"reply_{number}.md"}
        path.write_text(yaml.safe_dump({"replies": replies, **script}))
        made.append(World(tmp_path, Counting(path), budget))
        return made[-1]

    yield make
    for one in made:
        if one.sessions:
            one.session.close()
