"""Replies with a form: what is accepted, what goes back to the model, and that nothing else is ever raised."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ftagent.core.calls import Calls
from ftagent.core.errors import AgentUnavailable, NoUsableReply
from ftagent.core.types import CallPlace, Files
from ftagent.llm.scripted import ScriptedBackend
from ftagent.llm.structured import ask, ask_files
from ftagent.llm.types import ChatReply, ChatRequest, Message
from unit.llm.conftest import World, client

PLACE = CallPlace(0, "propose")
ASK = [Message("system", "You help."), Message("user", "What next?")]
PRICES = {"input": 1.0, "output": 2.0}


class Idea(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: str = Field(min_length=1)
    kind: Literal["draft", "improve"] = "draft"
    parent: int | None = None
    rate: float = 0.1
    steps: tuple[str, ...] = ()

    @field_validator("rate")
    @classmethod
    def _positive(cls, value: float) -> float:
        if value <= 0:
            raise ValueError("a rate is above 0")
        return value


class Note(BaseModel):
    note: str = ""
    use_template: bool = False


class Nothing(BaseModel):
    pass


GOOD = '```json\n{"title": "Lower rate", "kind": "improve", "parent": 2, "rate": 0.5, "steps": ["a", "b"]}\n```'
IDEA = Idea(title="Lower rate", kind="improve", parent=2, rate=0.5, steps=("a", "b"))
CODE = "### file: a/train.py\n```python\nprint('x')\n```\n\n### file: train.yaml\n```yaml\nrate: 1\n```\n"
FILES = {"a/train.py": "print('x')\n", "train.yaml": "rate: 1\n"}


def said(role: str, *texts: Any) -> list[dict[str, Any]]:
    """The replies of a conversation, turn by turn; a dict gives more than the text."""
    return [
        {"role": role, "turn": turn, **(text if isinstance(text, dict) else {"text": text})}
        for turn, text in enumerate(texts)
    ]


async def propose(run: World, *, tries: int = 3, **more: Any) -> Idea:
    return await ask(run.open(**more), "propose", PLACE, ASK, Idea, tries)


BAD: dict[str, tuple[Any, str]] = {
    "empty": ("", "it was empty"),
    "blank": (" \n\t ", "it was empty"),
    "no fence": ("I would lower the rate.", "it holds no JSON object"),
    "no object": ("```python\nprint(1)\n```", "it holds no JSON object"),
    "truncated": ('```json\n{"title": "Lower ra', "no valid JSON"),
    "cut off": ({"text": '```json\n{"title": "Lo', "finish_reason": "length", "usage": {"completion": 7}},
                "it was cut off at 7 tokens; answer shorter"),
    "only thought": ({"text": "<think>hm hm", "finish_reason": "length"}, "cut off"),
    "thought and nothing": ("<think>hm</think>", "it was empty"),
    "a list": ('```json\n[{"title": "a"}]\n```', "it is a list"),
    "wrong type": ('```json\n{"title": 5}\n```', "title: input should be a valid string (given: 5)"),
    "number as text": ('```json\n{"title": "a", "rate": "0.5"}\n```', "rate: input should be a valid number"),
    "true as number": ('```json\n{"title": "a", "parent": true}\n```', "parent: input should be a valid integer"),
    "NaN": ('```json\n{"title": "a", "rate": NaN}\n```', "NaN is no number"),
    "infinite": ('```json\n{"title": "a", "rate": 1e400}\n```', "too large a number"),
    "unknown choice": ('```json\n{"title": "a", "kind": "guess"}\n```', "kind: input should be 'draft' or 'improve'"),
    "missing": ('```json\n{"parent": 1}\n```', "title: field required"),
    "unknown field": ('```json\n{"title": "a", "network": true}\n```', "network: extra inputs"),
    "own rule": ('```json\n{"title": "a", "rate": -1}\n```', "rate: a rate is above 0"),
    "refused": ({"text": "", "refusal": "I cannot help."}, "the model refused (I cannot help)"),
    "filtered": ({"text": "", "finish_reason": "content_filter"}, "content filter"),
    "huge": ("x" * 5_000_000, "it holds no JSON object"),
    "huge object": ('```json\n{"title": 5, "steps": ["' + "x" * 5_000_000 + '"]}\n```', "title: input should"),
    "deep": ('```json\n{"title": ' + "[" * 50_000 + "\n```", "nested too deeply"),
    "two fences, both bad": ('```json\n{"title": 1}\n```\n```json\n{"titel": "a"}\n```', "title: field required"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_reply_is_repaired_and_charged(world: Callable[..., World], name: str) -> None:
    bad, problem = BAD[name]
    run = world(said("propose", bad, GOOD), prices=PRICES)
    assert await propose(run) == IDEA
    first, second = run.backend.requests
    *_, assistant, user = second.messages
    assert (assistant.role, user.role) == ("assistant", "user")
    assert problem in user.content
    assert assistant.content.strip()
    # What goes back is short, whatever came.
    assert sum(len(message.content) for message in second.messages) < 10_000
    assert second.messages[: len(first.messages)] == first.messages
    assert len(run.called) == 2
    assert all(called.cost_usd for called in run.called)


@pytest.mark.parametrize("name", BAD)
async def test_a_model_that_never_learns_ends_the_experiment_only(world: Callable[..., World], name: str) -> None:
    bad, problem = BAD[name]
    run = world(said("propose", bad, bad), prices=PRICES)
    with pytest.raises(NoUsableReply) as caught:
        await propose(run, tries=2)
    message = str(caught.value)
    assert message.startswith("propose: no usable reply in 2 tries: ")
    assert problem in message
    assert len(message) < 1000
    assert "\n" not in message
    assert len(run.called) == len(run.backend.requests) == 2
    assert run.session.state.cost_usd > 0


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("```json", "```"),
        f"Let me think.\n\n{GOOD}\n\nThat should help, because {{x}}.",
        GOOD.removeprefix("```json\n").removesuffix("\n```"),
        f"<json>{GOOD.removeprefix('```json').removesuffix('```')}</json>",
        f'First idea:\n```json\n{{"title": "First"}}\n```\nBetter:\n{GOOD}',
        f'{GOOD}\nNot this:\n```json\n{{"title": 3}}\n```',
        f"<think>```json\n{{\"title\": \"draft\"}}\n```</think>{GOOD}",
        GOOD.removesuffix("\n```"),
        GOOD.replace("\n", "\r\n"),
        {"text": GOOD, "finish_reason": "length"},
    ],
)  # fmt: skip
async def test_a_good_reply_is_taken_in_any_dress(world: Callable[..., World], text: Any) -> None:
    run = world(said("propose", text))
    assert await propose(run) == IDEA
    assert len(run.called) == 1


async def test_a_model_that_can_be_held_to_a_schema_gets_it(world: Callable[..., World]) -> None:
    run = world(said("propose", '{"title": "a"}'), follows_schema=True)
    assert (await propose(run)).title == "a"
    (request,) = run.backend.requests
    assert request.schema is not None
    assert set(request.schema["properties"]) == {"title", "kind", "parent", "rate", "steps"}
    assert "fenced" not in request.messages[-1].content


async def test_other_models_are_told_the_form_in_the_last_message(world: Callable[..., World]) -> None:
    run = world(said("propose", GOOD))
    await propose(run)
    (request,) = run.backend.requests
    assert request.schema is None
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.messages[1].content.startswith("What next?\n\nAnswer with one JSON object in a fenced block")
    # A field that is called title keeps its name; titles of the schema are left out.
    shown = json.loads(request.messages[1].content.rpartition("\n")[2])
    assert shown["properties"]["title"] == {"minLength": 1, "type": "string"}
    assert "title" not in shown


async def test_what_the_caller_knows_better_goes_back_too(world: Callable[..., World]) -> None:
    def check(idea: Idea) -> None:
        if idea.parent not in (None, 0, 1):
            raise ValueError(f"parent: there is no loop {idea.parent}; there are 0 and 1")

    run = world(said("propose", GOOD, GOOD.replace('"parent": 2', '"parent": 1')))
    idea = await ask(run.open(), "propose", PLACE, ASK, Idea, check=check)
    assert idea.parent == 1
    assert "there is no loop 2" in run.backend.requests[1].messages[-1].content


async def test_a_resumed_conversation_asks_nothing_again(world: Callable[..., World]) -> None:
    run = world(said("propose", "no", "nor this", GOOD))
    first = await propose(run)
    kept = run.transcripts()
    assert await propose(run) == first
    assert (len(run.backend.requests), run.transcripts()) == (3, kept)


async def test_a_model_that_is_away_is_not_a_bad_reply(world: Callable[..., World]) -> None:
    run = world(said("propose", "no", {"fail": {"kind": "authentication"}}))
    with pytest.raises(AgentUnavailable):
        await propose(run)


async def code(run: World, reply_type: type[BaseModel] = Note, tries: int = 3, **more: Any) -> tuple[Any, Files]:
    return await ask_files(run.open(), "code", CallPlace(0, "code"), ASK, reply_type, tries, **more)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (CODE, ""),
        (f'```json\n{{"note": "n"}}\n```\n\n{CODE}', "n"),
        (f'{CODE}\n```json\n{{"note": "n"}}\n```\n', "n"),
        (f'{{"note": "n"}}\n\n{CODE}', "n"),
        (f'<json>{{"note": "n"}}</json>\n{CODE}', "n"),
        (f"Use it as {{name}}:\n{CODE}\nRun:\n```sh\npython a/train.py\n```\n", ""),
        ("```python path=a/train.py\nprint('x')\n```\n```file:train.yaml\nrate: 1\n```", ""),
        ("**a/train.py**\n````python\nprint('x')\n````\n`train.yaml`:\n~~~\nrate: 1\n~~~", ""),
        (f"### file: train.yaml\n```\nold: 1\n```\nBetter:\n{CODE}", ""),
    ],
)  # fmt: skip
async def test_files_are_read_in_any_dress(world: Callable[..., World], text: str, note: str) -> None:
    run = world(said("code", text))
    found, files = await code(run)
    assert (found.note, dict(files)) == (note, FILES)


BAD_FILES: dict[str, tuple[Any, str]] = {
    "empty": ("", "it was empty"),
    "prose": ("I would write a file.", "it holds no file but no fenced block"),
    "no name": ("```python\nx = 1\n```", "it holds no file but 1 blocks without a name"),
    "unclosed": (CODE + "### file: b.py\n```python\nx =", "the block of b.py has no end"),
    "inner fence": ("### file: b.py\n```\np = '''\n```json\n'''\n```", "a longer fence (````)"),
    "cut between files": ({"text": CODE, "finish_reason": "length", "usage": {"completion": 9}}, "cut off at 9 tokens"),
    "bad header": (f'```json\n{{"note": 5}}\n```\n{CODE}', "note: input should be a valid string"),
    "broken header": (f'```json\n{{"note": \n```\n{CODE}', "no valid JSON"),
    "too many": ("".join(f"### file: {n}.txt\n```\nx\n```\n" for n in range(201)), "201 files"),
    "too large": ("### file: a\n```\n" + "x" * 2_000_001 + "\n```", "at most 200 files of 2000000 characters"),
    "refused": ({"text": "", "refusal": "No."}, "the model refused (No)"),
}


@pytest.mark.parametrize("name", BAD_FILES)
async def test_bad_files_are_repaired_and_charged(world: Callable[..., World], name: str) -> None:
    bad, problem = BAD_FILES[name]
    run = world(said("code", bad, CODE), prices=PRICES)
    _, files = await code(run)
    assert files == FILES
    assert problem in run.backend.requests[1].messages[-1].content
    assert len(run.backend.requests[1].messages[-2].content) < 5000
    assert len([called for called in run.called if called.cost_usd]) == 2
    endless = world(said("code", bad), prices=PRICES)
    with pytest.raises(NoUsableReply, match=r"^code: no usable reply in 1 try: "):
        await code(endless, tries=1)


async def test_a_header_that_is_needed_is_asked_for(world: Callable[..., World]) -> None:
    run = world(said("code", CODE, f'```json\n{{"title": "a"}}\n```\n{CODE}'))
    found, files = await code(run, Idea)
    assert (found.title, files) == ("a", FILES)
    assert "is missing (title: field required)" in run.backend.requests[1].messages[-1].content


async def test_without_a_header_the_model_is_not_told_of_one(world: Callable[..., World]) -> None:
    run = world(said("code", CODE))
    await code(run, Nothing)
    assert "JSON" not in run.backend.requests[0].messages[-1].content
    assert "### file: folder/name.py" in run.backend.requests[0].messages[-1].content


async def test_an_object_alone_may_do(world: Callable[..., World]) -> None:
    run = world(said("code", '```json\n{"use_template": true}\n```'))
    found, files = await code(run, files_required=False)
    assert (found.use_template, files) == (True, {})


async def test_files_are_checked_by_the_caller_too(world: Callable[..., World]) -> None:
    def check(note: Note, files: Files) -> None:
        if "main.py" not in files:
            raise ValueError("main.py is missing")

    run = world(said("code", CODE, CODE.replace("a/train.py", "main.py")))
    _, files = await code(run, check=check)
    assert set(files) == {"main.py", "train.yaml"}
    assert "main.py is missing" in run.backend.requests[1].messages[-1].content


class Saying(ScriptedBackend):
    """Says one text for ever."""

    def __init__(self, folder: Path) -> None:
        (folder / "empty.yaml").write_text("replies: []")
        super().__init__(folder / "empty.yaml")
        self.reply = ChatReply("")

    async def complete(self, request: ChatRequest) -> ChatReply:
        return self.reply


PIECES = [
    GOOD, CODE, "```", "````", "~~~", "```json", "### file: ", "<json>", "</json>", "<think>", "</think>", "{", "}",
    "[", '"', "\\", "\n", "\r\n", "NaN", "1e999", "\ud800", "\x00", "\u2028", "title", ":", ",", "a/b.py",
]  # fmt: skip


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    finish=st.sampled_from(["stop", "length", "content_filter"]),
    refusal=st.sampled_from(["", "", "no"]),
)
def test_no_reply_raises_anything_else(tmp_path: Path, seed: int, finish: str, refusal: str) -> None:
    """Good replies, cut, spliced and stirred at random."""
    dice = random.Random(seed)
    text = dice.choice([GOOD, f"{GOOD}\n{CODE}", CODE, ""])
    for _ in range(dice.randrange(6)):
        a, b = sorted(dice.randrange(len(text) + 1) for _ in range(2))
        text = dice.choice(
            [text[:a], text[a:], text[:a] + text[b:], text[:a] + dice.choice(PIECES) + text[a:], text * 2]
        )
    backend = Saying(tmp_path)
    backend.reply = ChatReply(text, finish_reason=finish, refusal=refusal)
    asking = client(backend, Calls(), tmp_path, lambda note: None)

    async def both() -> None:
        for call in (ask(asking, "propose", PLACE, ASK, Idea), ask_files(asking, "code", PLACE, ASK, Note)):
            try:
                result = await call
            except NoUsableReply as error:
                assert "\n" not in str(error)  # noqa: PT017 - either end is right
            else:
                assert isinstance(result, Idea | tuple)

    asyncio.run(both())
