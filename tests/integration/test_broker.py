"""Scripts in real sandboxes that ask a scripted model through the broker, with everything else cut off."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftagent.core.errors import AgentUnavailable, StageRefused
from ftagent.core.run_folder import RunFolder
from ftagent.core.session import LimitReached
from ftagent.core.types import Execution, Resources, Stage
from ftagent.environments import sandbox
from ftagent.environments.brokered import BrokeredEnvironment
from ftagent.environments.local import LocalEnvironment, LocalOptions
from ftagent.llm.broker import BrokerOptions, opener
from ftagent.llm.broker_socket import SOCKET
from ftagent.llm.client import ChatClient
from ftagent.llm.pools import Pools
from ftagent.llm.types import ModelChoice
from unit.llm.conftest import MODEL, Counting, World

CANARY = "sk-canary-8c1f04d2b7"
WAYS = {"sandboxed": LocalOptions(sandbox="bubblewrap"), "plain": LocalOptions(sandbox="none")}


@pytest.fixture(params=WAYS)
def environment(request: pytest.FixtureRequest) -> LocalEnvironment:
    if request.param == "sandboxed" and (why := sandbox.probe()):
        pytest.skip(why)
    return LocalEnvironment(WAYS[request.param])


@pytest.fixture
def sandboxed() -> LocalEnvironment:
    if why := sandbox.probe():
        pytest.skip(why)
    return LocalEnvironment(WAYS["sandboxed"])


Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """`make(replies, budget=…, prices=…)`: a run in a folder whose workspaces have paths of more than 200 bytes."""
    made: list[World] = []

    def world(replies: list[dict[str, Any]], budget: float | None = None, **script: Any) -> World:
        folder = tmp_path / ("d" * 200)
        folder.mkdir(exist_ok=True)
        path = folder / "model.yaml"
        path.write_text(yaml.safe_dump({"replies": replies, **script}))
        made.append(World(folder, Counting(path), budget))
        return made[-1]

    yield world
    for one in made:
        if one.sessions:
            one.session.close()


def place(run: World) -> Path:
    return RunFolder(run.folder / "run").workspace(0)


def wrapped(run: World, environment: LocalEnvironment, client: ChatClient, **options: Any) -> BrokeredEnvironment:
    pools = Pools(client.model("script"))
    return BrokeredEnvironment(environment, opener(client, pools, BrokerOptions(**options), run.notes.append))


async def execute(run: World, brokered: BrokeredEnvironment, script: str, **stage: Any) -> tuple[Execution, str]:
    """The stage `python script.py` in the run's workspace, and its output."""
    place(run).mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    values = {"llm": True, "time_limit": 60.0, **stage}
    asked = Stage("prepare_data", "full", ("python", "script.py"), files={"script.py": script}, **values)
    execution = await brokered.execute(asked, place(run), lines.append, run.folder / "prepare_data.log")
    return execution, "\n".join(lines)


SDK = """
import asyncio, json, os, socket
from concurrent.futures import ThreadPoolExecutor
from ftagent.toolkit.llm import ask, ask_many
import openai

out = {"variables": dict(os.environ)}
with open("/proc/self/environ") as file:
    out["environ"] = file.read()
client = openai.OpenAI()
said = client.chat.completions.create(model="strong", messages=[{"role": "user", "content": "from the sdk"}])
out["sdk"] = said.choices[0].message.content
stream = client.chat.completions.create(model="weak", messages=[{"role": "user", "content": "x"}], stream=True)
out["stream"] = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
out["vector"] = len(client.embeddings.create(model="embedding", input="x").data[0].embedding)
out["models"] = [model.id for model in client.models.list()]
out["ask"] = ask("by ask")
out["many"] = ask_many([f"number {n}" for n in range(20)], workers=8)
try:
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])
except openai.NotFoundError as error:
    out["unknown"] = error.code

async def crowd():
    many = openai.AsyncOpenAI()
    asked = (many.chat.completions.create(model="strong", messages=[{"role": "user", "content": f"crowd {n}"}])
             for n in range(100))
    return [answer.choices[0].message.content for answer in await asyncio.gather(*asked)]

out["crowd"] = asyncio.run(crowd())
for address in (("1.1.1.1", 53), ("127.0.0.1", int(os.environ["LISTENER"]))):
    try:
        socket.create_connection(address, 2).close()
        out["network"] = address
    except OSError:
        pass
try:
    socket.getaddrinfo("example.org", 80)
    out["network"] = "dns"
except OSError:
    pass
with open("out.json", "w") as file:
    json.dump(out, file)
print(json.dumps(out))
"""


async def test_plain_scripts_ask_with_the_network_cut_off_and_see_no_key(
    make: Make, sandboxed: LocalEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere/v1")
    # A model that tells the key: what a script gets of it and what is kept has none.
    run = make([{"role": "script", "text": f"yes {CANARY}", "seconds": 0.01}])
    client = run.open(choice=ModelChoice(MODEL, api_key=CANARY, api_base="http://real"), secrets=(CANARY,))
    brokered = wrapped(run, sandboxed, client, workers=5, embedding_model="scripted/embedding")
    with listener() as port:
        execution, text = await execute(run, brokered, SDK, variables={"LISTENER": str(port)})
    assert execution.ok, text
    out = json.loads((place(run) / "out.json").read_text())
    assert "network" not in out
    assert {out["sdk"], out["stream"], out["ask"], *out["many"], *out["crowd"]} == {"yes [redacted]"}
    assert (len(out["many"]), len(out["crowd"]), out["vector"], out["unknown"]) == (20, 100, 64, "model_not_found")
    assert out["models"] == ["strong", "weak", MODEL, "embedding", "scripted/embedding"]
    assert out["variables"]["OPENAI_API_KEY"].startswith("ft-")
    assert run.backend.most_in_flight == 5
    assert len(run.called) == 124
    assert SOCKET not in os.listdir(place(run))  # noqa: PTH208
    assert len(str(place(run))) > 200
    assert_nowhere(CANARY, run.folder)
    assert CANARY not in text + json.dumps(run.notes)


def assert_nowhere(secret: str, folder: Path) -> None:
    forms = {secret.encode()} | {
        base64.b64encode(b"\0" * shift + secret.encode())[4:-4] for shift in range(3)
    }  # fmt: skip
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "model.yaml"]
    assert len(files) > 100
    for path in files:
        content = path.read_bytes()
        assert not any(form in content for form in forms), path


@contextlib.contextmanager
def listener() -> Iterator[int]:
    """A server on the host's loopback that no sandbox may reach."""
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ASKING = """
from ftagent.toolkit.llm import ask_many
from pathlib import Path
Path("rows.txt").write_text("\\n".join(ask_many([f"row {n}" for n in range(6)], workers=3)))
Path("done").touch()
"""
ROWS = [{"role": "script", "contains": f"row {n}", "text": f"answer {n}"} for n in range(6)]


async def test_a_repeated_stage_is_free_and_equal(make: Make, environment: LocalEnvironment) -> None:
    run = make(ROWS)
    for _ in range(2):
        brokered = wrapped(run, environment, run.open())
        execution, text = await execute(run, brokered, ASKING, outputs=("done",))
        assert execution.ok, text
        assert (place(run) / "rows.txt").read_text().splitlines() == [f"answer {n}" for n in range(6)]
        (place(run) / "rows.txt").unlink()
    assert len(run.backend.requests) == len(run.called) == 6


async def test_a_stage_that_fails_at_the_cap_ends_the_run_and_not_the_experiment(
    make: Make, environment: LocalEnvironment
) -> None:
    costly = [{**row, "usage": {"prompt": 0, "completion": 1}} for row in ROWS]
    run = make(costly, budget=0.03, prices={"input": 0.0, "output": 10_000.0}, reply_tokens=1)
    brokered = wrapped(run, environment, run.open())
    with pytest.raises(LimitReached, match="--budget-usd"):
        await execute(run, brokered, ASKING)
    assert "the run's budget for language models is spent" in (run.folder / "prepare_data.log").read_text()
    assert sum(called.cost_usd or 0 for called in run.called) == pytest.approx(0.03)
    # The budget is raised: what was answered is not paid again.
    run.budget = None
    run.session.change_limits(type(run.session.state.limits)(budget_usd=1.0))
    execution, text = await execute(run, wrapped(run, environment, run.open()), ASKING)
    assert execution.ok, text
    assert len(run.backend.requests) == 6


async def test_a_script_that_handles_refusals_may_go_on(make: Make, environment: LocalEnvironment) -> None:
    run = make([{"role": "script", "fail": {"kind": "server"}}])
    brokered = wrapped(run, environment, run.open(retries=0))
    script = (
        "from ftagent.toolkit.llm import ModelError, ask\n"
        "try: ask('x')\n"
        "except ModelError as error: print(error.code)\n"
    )
    execution, text = await execute(run, brokered, script)
    assert (execution.ok, text) == (True, "model_unavailable")
    with pytest.raises(AgentUnavailable, match="no reply after 1 request"):
        await execute(run, brokered, script + "exit(1)")


SLOW = [{"role": "script", "text": "late", "seconds": 60}]
WAITING = "from pathlib import Path\nfrom ftagent.toolkit.llm import ask\nPath('asked').touch()\nask('x')"


async def test_a_time_limit_in_the_middle_of_a_call_leaves_nothing(make: Make, environment: LocalEnvironment) -> None:
    run = make(SLOW)
    brokered = wrapped(run, environment, run.open(), drain_seconds=0.1)
    began = time.monotonic()
    execution, _ = await execute(run, brokered, WAITING, time_limit=1.0)
    assert execution.end == "timed_out"
    assert time.monotonic() - began < 10
    assert run.backend.in_flight == 0
    assert run.called == []
    assert SOCKET not in os.listdir(place(run))  # noqa: PTH208
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancelled_stage_is_dead_before_its_task_is(make: Make, environment: LocalEnvironment) -> None:
    run = make(SLOW)
    brokered = wrapped(run, environment, run.open())
    task = asyncio.create_task(execute(run, brokered, WAITING))
    while not run.backend.in_flight:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.backend.in_flight == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert SOCKET not in os.listdir(place(run))  # noqa: PTH208


async def test_a_stage_without_a_model_or_without_need_is_left_alone(make: Make, environment: LocalEnvironment) -> None:
    run = make(ROWS)
    script = "import os\nprint([name for name in os.environ if 'OPENAI' in name or 'LLM' in name])"
    execution, text = await execute(run, wrapped(run, environment, run.open()), script, llm=False)
    assert (execution.ok, text) == (True, "[]")


async def test_the_command_fails_as_without_a_broker(make: Make, environment: LocalEnvironment) -> None:
    run = make(ROWS)
    brokered = wrapped(run, environment, run.open())
    for script, end, code in (("exit(3)", "failed", 3), ("import os\nos.kill(os.getpid(), 9)", "killed", 137)):
        execution, _ = await execute(run, brokered, script)
        assert (execution.end, execution.exit_code) == (end, code)
    execution, _ = await execute(run, brokered, "x = bytearray(2**30)", resources=Resources(memory_mb=200))
    assert execution.end == "out_of_memory"
    missing = Stage("x", "full", ("./nowhere",), llm=True)
    execution = await brokered.execute(missing, place(run), lambda line: None, run.folder / "x.log")
    assert (execution.end, execution.exit_code) == ("failed", 127)
    (place(run) / SOCKET).mkdir()
    with pytest.raises(StageRefused, match="is a folder"):
        await execute(run, brokered, "print(1)")
