"""The scripted model: which reply is given, and what is said about a bad file."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from ftagent.core.errors import RequestError
from ftagent.core.types import CallPlace
from ftagent.llm.scripted import ScriptedBackend
from ftagent.llm.types import CallFailed, ChatRequest, Message, ModelChoice, Role, Usage

SCRIPT = """
prices: {input: 1.0, output: 4.0}
context_tokens: 900
replies:
  - {role: propose, loop: 1, text: second loop}
  - {role: propose, contains: repair me, text: repaired}
  - {role: propose, turn: 1, text: another try}
  - {role: code, attempt: 2, file: code.md}
  - {role: propose, text: "12345678", reasoning: "1234"}
  - {role: reflect, fail: {kind: rate_limit, times: 2, retry_after: 3}, text: at last}
  - {role: judge, fail: {kind: authentication}}
  - {role: repair, text: slow, seconds: 5}
  - {role: script, text: "", finish_reason: length, usage: {prompt: 7, completion: 9, reasoning: 5, cached: 2}}
"""


def backend(folder: Path, text: str = SCRIPT) -> ScriptedBackend:
    (folder / "code.md").write_text("from a file")
    (folder / "script.yaml").write_text(text)
    return ScriptedBackend(folder / "script.yaml")


def request(
    role: Role, loop: int | None = 0, attempt: int = 0, *said: str, last: str = "hello", time_limit: float = 600.0
) -> ChatRequest:
    turns = [message for text in said for message in (Message("user", "ask"), Message("assistant", text))]
    choice = ModelChoice("scripted/x", time_limit=time_limit)
    return ChatRequest(choice, (*turns, Message("user", last)), role, CallPlace(loop, "propose", attempt))


@pytest.mark.parametrize(
    ("asked", "content"),
    [
        (request("propose"), "12345678"),
        (request("propose", 1), "second loop"),
        (request("propose", None), "12345678"),
        (request("propose", 0, 0, "bad"), "another try"),
        (request("propose", 0, 0, "bad", "worse"), "12345678"),
        (request("propose", last="please repair me"), "repaired"),
        (request("propose", 1, last="please repair me"), "second loop"),
        (request("code", 3, 2), "from a file"),
    ],
)
async def test_the_first_entry_that_matches_speaks(tmp_path: Path, asked: ChatRequest, content: str) -> None:
    model = backend(tmp_path)
    # Twice: what was asked before changes nothing.
    assert [(await model.complete(asked)).content for _ in range(2)] == [content, content]


async def test_no_match_is_refused_and_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(CallFailed, match="no reply for role code, loop 4, attempt 1, turn 0") as caught:
        await backend(tmp_path).complete(request("code", 4, 1))
    assert caught.value.kind == "refused"
    assert not caught.value.retried


async def test_tokens_are_given_or_a_quarter_of_the_characters(tmp_path: Path) -> None:
    model = backend(tmp_path)
    assert (await model.complete(request("propose"))).usage == Usage(prompt=2, completion=3, reasoning=1)
    cut = await model.complete(request("script"))
    assert cut.usage == Usage(7, 9, 5, 2)
    assert (cut.content, cut.finish_reason) == ("", "length")


async def test_failures_are_counted_per_request_and_place(tmp_path: Path) -> None:
    model = backend(tmp_path)
    for asked in (request("reflect"), request("reflect", 1)):
        for _ in range(2):
            with pytest.raises(CallFailed) as caught:
                await model.complete(asked)
            assert (caught.value.kind, caught.value.retry_after) == ("rate_limit", 3)
        assert (await model.complete(asked)).content == "at last"


async def test_a_failure_without_times_is_for_ever(tmp_path: Path) -> None:
    model = backend(tmp_path)
    for _ in range(5):
        with pytest.raises(CallFailed) as caught:
            await model.complete(request("judge"))
        assert caught.value.kind == "authentication"


async def test_a_slow_reply_ends_at_the_time_limit(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(CallFailed) as caught:
        await backend(tmp_path).complete(request("repair", time_limit=0.05))
    assert caught.value.kind == "time_out"
    assert time.monotonic() - started < 2


async def test_prices_and_sizes(tmp_path: Path) -> None:
    model = backend(tmp_path)
    price = model.price("any")
    assert price is not None
    assert price.of(Usage(prompt=1_000_000, completion=500_000)) == pytest.approx(3.0)
    assert (model.context_tokens("any"), model.count_tokens("any", "123456789")) == (900, 3)
    assert backend(tmp_path, "replies: []").price("any") is None


async def test_embeddings_are_equal_unit_vectors_and_closer_for_shared_words(tmp_path: Path) -> None:
    model = backend(tmp_path)
    texts = ["lower the learning rate", "a lower learning rate", "more rows of data", "", "learning -learning"]
    vectors, usage = await model.embed(ModelChoice("scripted/x"), texts)
    again, _ = await backend(tmp_path).embed(ModelChoice("scripted/x"), texts)
    assert vectors == again
    assert usage.prompt > 0
    assert all(math.isclose(sum(x * x for x in vector), 1.0) for vector in vectors)

    def likeness(a: int, b: int) -> float:
        return sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True))

    assert likeness(0, 1) > likeness(0, 2)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("replies:\n  - role: propose\n    text: a\n    txet: b\n", ":4: replies.0.txet: extra"),
        ("replies:\n  - role: proposer\n    text: a\n", ":2: replies.0.role: input should be"),
        ("replies:\n  - role: propose\n", ":2: replies.0: text, file, refusal"),
        ("replies:\n  - {role: code, text: a, file: b}\n", ":2: replies.0: either text or file"),
        ("replies:\n  - {role: code, fail: {kind: cut, times: 2}}\n", "is missing"),
        ("replies:\n  - {role: code, text: 5}\n", ":2: replies.0.text: input should be a valid string"),
        ("replies:\n\n  - role: code\n    file: nowhere.md\n", ":4: nowhere.md cannot be read"),
        ("replies: [\n", ":2: not YAML"),
        ("- a\n", ":1: a script is a mapping"),
        ("a: \x00", ":1: not YAML"),
        ("prices: {input: -1, output: 0}\n", ":1: prices.input: input should be greater"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(RequestError) as caught:
        backend(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "script.yaml"))
    assert part in message
    assert "\n" not in message


def test_a_missing_file_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="No such file"):
        ScriptedBackend(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff")
    with pytest.raises(RequestError, match="not UTF-8"):
        ScriptedBackend(tmp_path / "binary.yaml")
