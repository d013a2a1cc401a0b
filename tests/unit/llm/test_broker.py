"""The broker over its real socket, with a scripted model behind a real client and a real journal."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import stat
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ftagent.core.errors import AgentUnavailable, StageRefused, StorageFull
from ftagent.core.run_folder import RunFolder
from ftagent.core.session import LimitReached
from ftagent.core.types import CallPlace
from ftagent.llm.broker_socket import SOCKET, Door
from ftagent.llm.pools import Pools
from ftagent.llm.types import CallFailed, FailureKind, ModelChoice
from support.endpoint import serving
from unit.llm.conftest import MODEL, Counting, World

PRICES = {"input": 0.0, "output": 10_000.0}
CENT = {"completion": 1, "prompt": 0}
"""Usage that costs a cent at these prices."""
HI = [{"role": "script", "text": "hi"}]


def workspace(run: World, loop: int | None = 0, attempt: int | None = None) -> Path:
    return RunFolder(run.folder / "run").workspace(loop, attempt)


async def test_a_call_is_answered_and_metered_at_the_place_of_its_stage(world: Callable[..., World]) -> None:
    usage = {"prompt": 7, "completion": 5, "reasoning": 2, "cached": 3}
    run = world([{"role": "script", "text": "42", "reasoning": "six by seven", "usage": usage}], prices=PRICES)
    async with serving(run.open(), workspace(run, 2, 1)) as endpoint:
        answer = await endpoint.ask("what is six by seven?")
    document = answer.document
    assert document["choices"] == [{
        "index": 0, "finish_reason": "stop", "logprobs": None,
        "message": {"role": "assistant", "content": "42", "refusal": None, "reasoning_content": "six by seven"},
    }]  # fmt: skip
    assert document["model"] == MODEL
    assert document["usage"] == {
        "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }  # fmt: skip
    (called,) = run.called
    assert (called.loop, called.step, called.attempt, called.role) == (2, "code", 1, "script")
    assert called.cost_usd == pytest.approx(0.05)
    assert list(run.transcripts()) == ["Loop_2/coding/transcript/1.0_script.json"]


async def test_a_stream_says_the_same(world: Callable[..., World]) -> None:
    run = world(HI)
    async with serving(run.open(), workspace(run)) as endpoint:
        answer = await endpoint.ask(stream=True, stream_options={"include_usage": True}, n=2)
        whole = await endpoint.ask(n=2)
    assert answer.headers["Content-Type"] == "text/event-stream"
    texts = {0: "", 1: ""}
    for event in answer.events:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == {choice["index"]: choice["message"]["content"] for choice in whole.document["choices"]}
    assert answer.events[-1]["usage"] == whole.document["usage"]
    assert [event["choices"][0]["finish_reason"] for event in answer.events[:-1]] == [None, "stop", None, "stop"]


async def test_only_the_token_opens_and_only_three_paths_are_there(world: Callable[..., World]) -> None:
    run = world(HI)
    async with serving(run.open(), workspace(run)) as endpoint:
        for token in ("", "wrong", "ft-", "é"):
            assert (await endpoint.send("GET", "/v1/models", token=token)).status == 401
        models = await endpoint.send("GET", "/v1/models")
        assert [model["id"] for model in models.document["data"]] == ["strong", "weak", MODEL]
        assert (await endpoint.send("POST", "/v1/models", {})).status == 405
        for path in ("/", "/v1/completions", "/v1/files", "/v1/chat/completions/../../x", "/v1/models/"):
            assert (await endpoint.send("GET", path)).status == 404
        assert (await endpoint.send("POST", "/v1/embeddings", {"model": "x", "input": "x"})).status == 404
    assert run.called == []


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"model": "gpt-4o"}, 404, "use strong, weak, scripted/model.yaml"),
        ({"model": None}, 404, "use strong"),
        ({"model": ["strong"]}, 404, "use strong"),
        ({"messages": []}, 400, "`messages` must be a list like"),
        ({"messages": "hello"}, 400, "`messages` must be a list like"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "`messages[0].role` must be one of system"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "a list of parts of type text"),
        ({"messages": [{"role": "user", "content": 1}]}, 400, "`messages[0].content` must be a text"),
        ({"temperature": 2.5}, 400, "`temperature` must be a number from 0 to 2"),
        ({"temperature": float("nan")}, 400, "`temperature` must be"),
        ({"temperature": True}, 400, "`temperature` must be"),
        ({"max_tokens": 0}, 400, "`max_tokens` must be a whole number from 1"),
        ({"max_completion_tokens": "9"}, 400, "`max_completion_tokens` must be"),
        ({"n": 33}, 400, "`n` must be a whole number from 1 to 32"),
        ({"stop": [1]}, 400, "`stop` must be a text or a list"),
        ({"stream": "yes"}, 400, "`stream` must be true or false"),
        ({"response_format": {"type": "yaml"}}, 400, "`response_format` must be of type"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, 400, "`response_format` must be of type"),
    ],
)
async def test_a_bad_request_is_told_what_would_be_right(
    world: Callable[..., World], change: dict[str, Any], status: int, says: str
) -> None:
    run = world(HI)
    async with serving(run.open(), workspace(run)) as endpoint:
        answer = await endpoint.ask(**change)
    assert answer.status == status
    assert says in answer.document["error"]["message"]
    assert run.backend.requests == []


async def test_bodies_that_are_none_do_no_harm(world: Callable[..., World]) -> None:
    run = world(HI)
    deep: Any = {}
    for _ in range(400):
        deep = {"type": "object", "properties": {"a": deep}}
    schema = {"type": "json_schema", "json_schema": {"schema": deep}}
    async with serving(run.open(), workspace(run), most_body_bytes=100_000) as endpoint:
        for body in (b"", b"{", b"[]", b"null", b"\xff", b"[" * 50_000, b'{"model": ' + b"9" * 5000 + b"}"):
            assert (await endpoint.send("POST", "/v1/chat/completions", body)).status == 400
        assert (await endpoint.ask(response_format=schema)).status == 400
        large = await endpoint.ask("x" * 100_000)
        assert (large.status, large.document["error"]["code"]) == (413, "too_large")
        assert (await endpoint.ask("\ud800")).text == "hi"


async def test_what_a_script_sets_reaches_the_model_and_nothing_else_does(world: Callable[..., World]) -> None:
    run = world(HI)
    known = {"temperature": 0.5, "max_completion_tokens": 9, "seed": 3, "top_p": 0.9, "stop": ["\n"]}
    unknown = {"api_base": "http://evil", "api_key": "sk-x", "extra_headers": {"a": "b"}, "tools": [], "a\r\nb: c": 1}
    client = run.open(choice=ModelChoice(MODEL, api_key="sk-real", api_base="http://real", reasoning_effort="low"))
    async with serving(client, workspace(run), note=run.notes.append) as endpoint:
        answer = await endpoint.ask(**known, **unknown, response_format={"type": "json_object"})
        await endpoint.ask(**known, **unknown)
        schema = {"type": "object"}
        await endpoint.ask(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    first, second, third = (request.choice for request in run.backend.requests)
    assert (first.temperature, first.max_tokens, first.reasoning_effort) == (0.5, 9, "low")
    assert first.extra == {"seed": 3, "top_p": 0.9, "stop": ["\n"], "response_format": {"type": "json_object"}}
    assert (first.api_key, first.api_base) == ("sk-real", "http://real")
    assert second.extra == {"seed": 3, "top_p": 0.9, "stop": ["\n"]}
    assert third.extra == {}
    assert run.backend.requests[2].schema == schema
    assert answer.headers["x-ftagent-ignored"] == "a??b??c,api_base,api_key,extra_headers,tools"
    assert [note for note in run.notes if "'tools'" in note] == [
        "a script's parameter 'tools' means nothing here and is ignored"
    ]


async def test_as_many_calls_at_once_as_there_are_workers(world: Callable[..., World]) -> None:
    run = world([{"role": "script", "text": "hi", "seconds": 0.02}])
    async with serving(run.open(), workspace(run), workers=3) as endpoint:
        asked = [endpoint.ask(f"question {number}") for number in range(8)]
        answers = await asyncio.gather(*asked, endpoint.ask("many", n=4))
    assert {answer.status for answer in answers} == {200}
    assert len(answers[-1].document["choices"]) == 4
    assert run.backend.most_in_flight == 3
    assert len(run.called) == 12


async def test_twenty_at_once_exceed_the_cap_by_one_call_at_most(world: Callable[..., World]) -> None:
    run = world([{"role": "script", "text": "hi", "seconds": 0.01, "usage": CENT}], budget=0.05, prices=PRICES,
                reply_tokens=3)  # fmt: skip
    async with serving(run.open(), workspace(run), workers=20) as endpoint:
        answers = await asyncio.gather(*(endpoint.ask(f"question {number}") for number in range(20)))
        endpoint.broker.conclude(ok=True)
        with pytest.raises(LimitReached) as limit:
            endpoint.broker.conclude(ok=False)
    assert limit.value.limit == "--budget-usd"
    refused = [answer for answer in answers if answer.status != 200]
    assert {(answer.status, answer.document["error"]["code"]) for answer in refused} == {(429, "budget_exceeded")}
    assert {answer.headers["x-should-retry"] for answer in refused} == {"false"}
    assert 0.04 < sum(called.cost_usd or 0 for called in run.called) <= 0.06
    assert len(run.called) == len(run.backend.requests) == 20 - len(refused)


async def test_a_repeated_stage_gets_the_same_replies_for_nothing(world: Callable[..., World]) -> None:
    run = world([{"role": "script", "contains": f"question {n}", "text": f"reply {n}"} for n in range(3)])

    async def stage(client: Any) -> list[bytes]:
        async with serving(client, workspace(run)) as endpoint:
            return [(await endpoint.ask(f"question {n}")).body for n in (0, 1, 1, 2)]

    first = await stage(run.open())
    asked, kept = len(run.backend.requests), run.transcripts()
    resumed = run.open()
    assert await stage(resumed) == first
    assert await stage(resumed) == first, "a stage that is repeated in one session begins anew, too"
    assert len(run.backend.requests) == len(run.called) == asked == 4
    assert run.transcripts() == kept


class Numbered(Counting):
    """Says another number each time, and which model it is; models in `down` fail."""

    down: frozenset[str] = frozenset()
    kind: FailureKind = "server"
    retry_after: Mapping[str, float] = {}

    async def complete(self, request: Any) -> Any:
        reply = await super().complete(request)
        if request.choice.model in self.down:
            raise CallFailed("out of order", self.kind, self.retry_after.get(request.choice.model))
        return type(reply)(f"{request.choice.model} {len(self.requests)}")


async def test_asking_again_gives_a_new_sample_which_other_stages_get_for_nothing(world: Callable[..., World]) -> None:
    run = world(HI)
    run.backend = Numbered(run.folder / "model.yaml")

    async def stage(place: Path, times: int) -> list[str]:
        async with serving(client, place) as endpoint:
            return [(await endpoint.ask()).text.split()[-1] for _ in range(times)]

    client = run.open()
    assert await stage(workspace(run, 0, 0), 2) == ["1", "2"]
    assert await stage(workspace(run, 0), 3) == ["1", "2", "3"]
    assert await stage(workspace(run, 1), 4) == ["1", "2", "3", "4"]
    client = run.open()
    assert await stage(workspace(run, 0), 4) == ["1", "2", "3", "4"]
    assert await stage(workspace(run, 1), 4) == ["1", "2", "3", "4"]
    assert len(run.backend.requests) == 4
    assert [called.requests for called in run.called].count(1) == 4
    assert {called.cost_usd for called in run.called if not called.requests} == {0.0}


def pools(strong: int) -> Pools:
    chat = ModelChoice(MODEL)
    return Pools(chat, [ModelChoice(f"strong-{number}") for number in range(strong)], [ModelChoice("weak-0")])


async def test_members_of_a_pool_take_turns_and_stand_in_for_each_other(world: Callable[..., World]) -> None:
    run = world(HI)
    run.backend = Numbered(run.folder / "model.yaml")

    async def stage() -> list[str]:
        run.backend.down = frozenset()
        async with serving(run.open(), workspace(run), pools(3), run.notes.append, workers=1) as endpoint:
            said = [(await endpoint.ask()).text for _ in range(4)]
            run.backend.down = frozenset({"strong-1"})
            said += [(await endpoint.ask()).text for _ in range(3)]
            said += [(await endpoint.ask(model=model)).text for model in ("weak", "strong-2", MODEL)]
            return [text.split()[0] for text in said]

    first = await stage()
    assert len(set(first[:3])) == 3
    assert first[3] == first[0]
    turn = first[:3].index("strong-1")
    stand_in = first[(turn + 1) % 3]
    assert first[4:7] == [stand_in if model == "strong-1" else model for model in (first[1], first[2], first[0])]
    assert first[7:] == ["weak-0", "strong-2", MODEL]
    assert any("call to strong-1 failed" in note for note in run.notes)
    asked = len(run.backend.requests)
    assert await stage() == first, "in the same order from the record"
    assert len(run.backend.requests) == asked


async def test_each_request_has_its_member_whenever_it_comes_and_all_have_their_share() -> None:
    texts = [f"request {number}" for number in range(300)]
    asked = {text: pools(3).turn("strong", text, 0)[0].model for text in texts}
    assert asked == {text: pools(3).turn("strong", text, 0)[0].model for text in reversed(texts)}
    assert all(70 < list(asked.values()).count(f"strong-{number}") < 130 for number in range(3))


async def test_a_model_that_is_down_is_no_fault_of_the_script(world: Callable[..., World]) -> None:
    run = world(HI)
    run.backend = Numbered(run.folder / "model.yaml")
    run.backend.down = frozenset({"strong-0", "strong-1"})
    async with serving(run.open(retries=2), workspace(run), pools(2)) as endpoint:
        answer = await endpoint.ask()
        assert (answer.status, answer.document["error"]["code"]) == (503, "model_unavailable")
        # Each at once, then each with the retries that are left.
        models = [request.choice.model for request in run.backend.requests]
        one, other = models[:2]
        assert {one, other} == {"strong-0", "strong-1"}
        assert models[2:] == [one, one, other, other]
        endpoint.broker.conclude(ok=True)
        with pytest.raises(AgentUnavailable, match=r"strong-\d: no reply after 2 requests"):
            endpoint.broker.conclude(ok=False)
        assert (await endpoint.ask(model="weak")).status == 200
        endpoint.broker.conclude(ok=False)


async def test_a_pool_waits_as_its_members_ask(world: Callable[..., World]) -> None:
    run = world(HI)
    run.backend = Numbered(run.folder / "model.yaml")
    run.backend.down = frozenset({"strong-0", "strong-1"})
    run.backend.kind, run.backend.retry_after = "rate_limit", {"strong-0": 0.3, "strong-1": 0.1}
    async with serving(run.open(retries=2), workspace(run), pools(2)) as endpoint:
        began = time.monotonic()
        asked = asyncio.create_task(endpoint.ask())
        await asyncio.sleep(0.05)
        assert len(run.backend.requests) == 2
        run.backend.down = frozenset({"strong-0"})
        answer = await asked
        assert answer.text.startswith("strong-1")
        assert 0.1 <= time.monotonic() - began < 0.3
        run.backend.down, run.backend.kind = frozenset({"strong-0", "strong-1"}), "authentication"
        assert (await endpoint.ask("another")).status == 503
    assert len(run.backend.requests) == 5


async def test_a_request_that_no_model_takes_is_the_scripts_own_fault(world: Callable[..., World]) -> None:
    run = world([{"role": "script", "fail": {"kind": "too_long"}}])
    async with serving(run.open(secrets=("model.yaml",)), workspace(run)) as endpoint:
        answer = await endpoint.ask()
        endpoint.broker.conclude(ok=False)
    assert (answer.status, answer.document["error"]["code"]) == (400, "no_usable_reply")
    assert "the prompt is too long" in answer.document["error"]["message"]
    assert "model.yaml" not in answer.document["error"]["message"]


async def test_embeddings(world: Callable[..., World]) -> None:
    run = world(HI)
    async with serving(run.open(), workspace(run), embedding_model="scripted/embedding") as endpoint:
        asked = {"model": "embedding", "input": ["one", "two"], "dimensions": 3}
        plain = await endpoint.send("POST", "/v1/embeddings", asked)
        packed = await endpoint.send("POST", "/v1/embeddings", {**asked, "encoding_format": "base64"})
        for wrong in (1, [], [""], [1, 2], ["x"] * 2049):
            assert (await endpoint.send("POST", "/v1/embeddings", {**asked, "input": wrong})).status == 400
        models = await endpoint.send("GET", "/v1/models")
    vectors = [item["embedding"] for item in plain.document["data"]]
    unpacked = [
        struct.unpack("<64f", base64.b64decode(item["embedding"])) for item in packed.document["data"]
    ]  # fmt: skip
    assert [item["index"] for item in plain.document["data"]] == [0, 1]
    assert vectors[0] != vectors[1]
    assert unpacked == [pytest.approx(vector) for vector in vectors]
    assert plain.headers["x-ftagent-ignored"] == "dimensions"
    assert [model["id"] for model in models.document["data"]][-2:] == ["embedding", "scripted/embedding"]
    assert {(called.role, called.loop, called.step) for called in run.called} == {("script", 0, "run")}


async def test_a_client_that_gives_up_and_asks_again_gets_what_it_asked_for(world: Callable[..., World]) -> None:
    run = world([{"role": "script", "text": "hi", "seconds": 0.1}])
    async with serving(run.open(), workspace(run)) as endpoint:
        for seconds in (0.02, 0.02, 0.2):
            try:
                async with asyncio.timeout(seconds):
                    assert (await endpoint.ask()).text == "hi"
            except TimeoutError:
                await asyncio.sleep(0.01)
    assert len(run.backend.requests) == len(run.called) == 1


async def test_calls_under_way_at_the_end_of_a_stage_are_recorded_or_cancelled(world: Callable[..., World]) -> None:
    slow = [{"role": "script", "contains": "soon", "text": "a", "seconds": 0.05, "usage": CENT},
            {"role": "script", "contains": "never", "text": "b", "seconds": 60, "usage": CENT}]  # fmt: skip
    run = world(slow, budget=1.0, prices=PRICES, reply_tokens=40)
    client = run.open()
    async with serving(client, workspace(run), drain_seconds=0.2) as endpoint:
        asked = [asyncio.create_task(endpoint.ask(text)) for text in ("soon", "never")]
        while run.backend.in_flight < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
    assert [called.cost_usd for called in run.called] == [pytest.approx(0.01)]
    assert run.backend.in_flight == 0
    assert client.ledger.spent_usd == pytest.approx(0.01)
    # What the cancelled call had reserved is free again.
    async with serving(client, workspace(run, 1)) as endpoint:
        assert (await endpoint.ask("soon", max_tokens=98)).status == 200


async def test_a_record_that_cannot_be_written_ends_the_stage(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = world(HI)
    client = run.open()
    monkeypatch.setattr(run.session.journal, "append", full)
    async with serving(client, workspace(run)) as endpoint:
        watching = asyncio.create_task(endpoint.broker.watch())
        answer = await endpoint.ask()
        assert (answer.status, answer.document["error"]["code"]) == (503, "broken")
        with pytest.raises(StorageFull):
            await watching
    with pytest.raises(StorageFull):
        endpoint.broker.conclude(ok=True)


def full(event: object) -> None:
    raise StorageFull("journal.jsonl: cannot be written: no space left on device")


async def test_the_socket_is_ours_alone_and_gone_afterwards(world: Callable[..., World]) -> None:
    run = world(HI)
    run.folder /= "d" * 100
    run.folder.mkdir()
    place = workspace(run)
    place.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left:  # what a killed session leaves
        folder = os.open(place, os.O_PATH)
        left.bind(f"/proc/self/fd/{folder}/{SOCKET}")
        os.close(folder)
    async with serving(run.open(), place) as endpoint:
        status = os.lstat(place / SOCKET)
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert (await endpoint.ask()).text == "hi"
    assert SOCKET not in os.listdir(place)  # noqa: PTH208
    assert len(str(place / SOCKET)) > 107


def test_a_planted_name_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    place = tmp_path / "workspace"
    place.mkdir()
    (place / SOCKET).symlink_to(target)
    Door(place).close()
    assert target.read_text() == "mine"
    (place / SOCKET).mkdir()
    with pytest.raises(StageRefused, match="is a folder"):
        Door(place)


async def test_connections_that_say_nothing_leave_our_descriptors_alone(world: Callable[..., World]) -> None:
    run = world(HI)
    place = workspace(run)
    async with serving(run.open(), place, workers=1) as endpoint:
        folder = os.open(place, os.O_PATH)
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        idle = []
        for _ in range(200):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")
            idle.append(connection)
        await asyncio.sleep(0.1)
        ours = len(os.listdir("/proc/self/fd")) - before - len(idle)  # noqa: PTH208
        assert 0 < ours <= 17
        for connection in idle:
            connection.close()
        os.close(folder)
        assert (await endpoint.ask()).text == "hi"


@pytest.mark.parametrize("loop", [None, 0, 12])
@pytest.mark.parametrize("attempt", [None, 0, 3])
def test_the_place_of_a_workspace(tmp_path: Path, loop: int | None, attempt: int | None) -> None:
    place = RunFolder.place_of(RunFolder(tmp_path).workspace(loop, attempt))
    assert place == (CallPlace(loop, "run") if attempt is None else CallPlace(loop, "code", attempt))


@pytest.mark.parametrize(
    "path", ["x", "workspaces/Loop_0", "workspaces/Loop_x/full", "Loop_0/full", "workspaces/Loop_0/full/x"]
)
def test_other_folders_have_no_place(path: str) -> None:
    with pytest.raises(ValueError, match="is no workspace of a run"):
        RunFolder.place_of(Path("/run") / path)


def test_equal_replies_are_equal_bytes() -> None:
    from ftagent.llm.script_replies import completion
    from ftagent.llm.types import ChatReply

    first, second = (completion("m", [ChatReply("hi")]) for _ in range(2))
    assert first == second
    assert json.loads(first)["id"] != json.loads(completion("m", [ChatReply("ho")]))["id"]
