"""What scripts asked, replayed: in another order, from pools, with replies of other places."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftagent.core import events
from ftagent.core.calls import Calls, read_transcript
from ftagent.core.observer import Silent
from ftagent.core.recorded import Different, first_difference, without_scripts
from ftagent.core.run_folder import RunFolder
from ftagent.core.session import Session
from ftagent.llm.client import ChatClient
from ftagent.llm.pools import Pools
from ftagent.llm.recorded import ModelFacts, RecordedBackend
from ftagent.llm.types import ModelChoice, Price
from support.endpoint import serving
from unit.llm.conftest import MODEL, World, client
from unit.llm.test_broker import Numbered

FACTS = ModelFacts(Price(1e-3, 1e-3), 1000, 100, False)
POOLS = Pools(ModelChoice(MODEL), [ModelChoice("a"), ModelChoice("b"), ModelChoice("c")])


async def stage(asking: ChatClient, folder: RunFolder, loop: int, texts: list[str]) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    async with serving(asking, folder.workspace(loop), POOLS) as endpoint:
        for text in texts:
            answer = await endpoint.ask(text)
            assert answer.status == 200, answer.document
            said.setdefault(text, []).append(answer.text)
    return said


def replayed(run: World, path: Path) -> tuple[ChatClient, Session]:
    path.mkdir()
    session = Session(RunFolder(path), Silent())
    session.record(run.session.journal.records[0].event)
    calls = Calls(reuses=False)
    calls.open(session)
    state = run.session.state
    transcripts = {
        place: [read_transcript(run.session.folder, c) for c in called] for place, called in state.calls.items()
    }
    facts = dict.fromkeys((MODEL, "a", "b", "c"), FACTS)
    return client(RecordedBackend(transcripts, facts, run.backend), calls, path, print, retries=0), session


def history(session: Session) -> list[events.Event]:
    return [record.event for record in session.journal.records]


@pytest.fixture
def run(world: Callable[..., World]) -> World:
    made = world([{"role": "script", "text": "hi"}], prices={"input": 1.0, "output": 1.0})
    made.backend = Numbered(made.folder / "model.yaml")
    return made


async def test_another_order_of_asking_is_no_difference(run: World, tmp_path: Path) -> None:
    asking = run.open()
    asked = [["x", "y"], ["y", "z", "y"]]
    first = [await stage(asking, run.session.folder, loop, texts) for loop, texts in enumerate(asked)]
    again, session = replayed(run, tmp_path / "again")
    try:
        # The second loop is the first to ask: who pays for `y` is another, and each pool begins elsewhere.
        second = await stage(again, session.folder, 1, ["z", "y", "y"])
        assert [await stage(again, session.folder, 0, ["y", "x"]), second] == first
        assert first_difference(run.session.folder, history(run.session), session.folder, history(session)) is None
        story = history(run.session)
        assert without_scripts(story) == story[:1]
    finally:
        session.close()


async def test_another_question_or_reply_is_one(run: World, tmp_path: Path) -> None:
    await stage(run.open(), run.session.folder, 0, ["x", "y"])
    again, session = replayed(run, tmp_path / "again")
    try:
        async with serving(again, session.folder.workspace(0), POOLS) as endpoint:
            watching = asyncio.create_task(endpoint.broker.watch())
            assert (await endpoint.ask("new")).status == 503
            with pytest.raises(Different, match="loop 0, run, a script's call: a request that was not made"):
                await watching
        await stage(again, session.folder, 0, ["x"])
        story: list[Any] = history(run.session)
        found = first_difference(run.session.folder, story, session.folder, history(session))
        assert found is not None
        assert "called" in found.what
        changed = [*story[:-1], dataclasses.replace(story[-1], model="another")]
        found = first_difference(run.session.folder, story, run.session.folder, changed)
        assert found is not None
        assert found.what == "called model"
    finally:
        session.close()
