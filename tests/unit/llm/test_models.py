"""From settings to models: the map of steps, the judge, prices, and what is refused before a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftagent.core.calls import Calls
from ftagent.core.errors import RequestError
from ftagent.core.types import CallPlace
from ftagent.llm.client import ChatClient
from ftagent.llm.models import build_client, check_prices, embedding_of, models_of, prices_of
from ftagent.llm.types import ROLES, Message, ModelChoice, Price
from ftagent.settings.loading import Settings, load


def settings(folder: Path, steps: dict[str, Any] | None = None, **variables: str) -> Settings:
    if steps is not None:
        variables["LITELLM_CHAT_MODEL_MAP"] = json.dumps(steps)
    return load(None, {"CHAT_MODEL": "gpt-4o", **variables}, folder)


def built(folder: Path, notes: list[str] | None = None, check: bool = False, **variables: str) -> ChatClient:
    said = notes if notes is not None else []
    return build_client(settings(folder, **variables), Calls(), said.append, folder, check)


def test_one_model_for_every_role(tmp_path: Path) -> None:
    models = models_of(settings(tmp_path, CHAT_FREQUENCY_PENALTY="0.1", CHAT_STREAM="False", REASONING_THINK_RM="True",
                                FTAGENT_CALL_TIMEOUT="30", OPENAI_API_KEY="sk-1234567"))  # fmt: skip
    one = ModelChoice("gpt-4o", 1.0, frequency_penalty=0.1, stream=False, time_limit=30.0, strip_thinking=True)
    assert models == dict.fromkeys(ROLES, one)


def test_a_map_changes_single_steps(tmp_path: Path) -> None:
    steps = {
        "propose": {"temperature": "0.3", "max_tokens": 900},
        "coding": {"model": "o3-mini", "reasoning_effort": "high", "seed": 7, "timeout": 60},
        "running": {"model": "o3-mini", "reasoning_effort": "None", "temperature": None, "stream": False},
        "judge": {"model": "m", "base_url": "http://host/v1", "api_key": "k"},
    }
    models = models_of(settings(tmp_path, steps))
    base = ModelChoice("gpt-4o")
    assert models["script"] == base
    assert models["propose"] == ModelChoice("gpt-4o", 0.3, max_tokens=900)
    code = ModelChoice("o3-mini", 1.0, reasoning_effort="high", extra={"seed": 7}, time_limit=60.0)
    assert models["code"] == models["repair"] == code
    assert models["reflect"] == ModelChoice("o3-mini", None, stream=False)
    assert models["judge"] == ModelChoice("m", api_base="http://host/v1", api_key="k")


def test_repair_may_have_its_own(tmp_path: Path) -> None:
    models = models_of(settings(tmp_path, {"code": {"model": "a"}, "repair": {"model": "b"}}))
    assert (models["code"].model, models["repair"].model) == ("a", "b")


def test_the_judges_own_settings_win(tmp_path: Path) -> None:
    given = {"FT_JUDGE_MODEL": "judge", "FT_JUDGE_API_KEY": "jk-123456", "FT_JUDGE_API_BASE": "http://judge/v1"}
    models = models_of(settings(tmp_path, {"judge": {"model": "other", "max_tokens": 5}}, **given))
    assert models["judge"] == ModelChoice("judge", max_tokens=5, api_key="jk-123456", api_base="http://judge/v1")
    assert models["propose"] == ModelChoice("gpt-4o")


@pytest.mark.parametrize(
    ("steps", "part"),
    [
        ({"codng": {"model": "x"}}, "there is no step 'codng'; valid: propose, code, repair, reflect, judge"),
        ({"script": {"model": "x"}}, "there is no step 'script'"),
        ({"code": {"temperature": 3}}, "code.temperature: input should be less than or equal to 2"),
        ({"code": {"max_tokens": 0}}, "code.max_tokens: input should be greater than 0"),
        ({"code": {"model": ["x"]}}, "code.model: input should be a valid string"),
        ({"code": {"model": ""}}, "code.model: string should have at least 1"),
    ],
)
def test_a_map_that_does_not_read_is_refused(tmp_path: Path, steps: dict[str, Any], part: str) -> None:
    with pytest.raises(RequestError) as caught:
        models_of(settings(tmp_path, steps))
    assert str(caught.value).startswith("LITELLM_CHAT_MODEL_MAP (environment): ")
    assert part in str(caught.value)


def test_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="CHAT_MODEL is not set"):
        models_of(load(None, {}, tmp_path))


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"EMBEDDING_MODEL": "text-embedding-ada-002", "EMBEDDING_USE_AZURE": "True"}, "azure/text-embedding-ada-002"),
        ({"EMBEDDING_MODEL": "azure/x", "EMBEDDING_USE_AZURE": "True"}, "azure/x"),
        ({"EMBEDDING_MODEL": "text-embedding-3-small"}, "text-embedding-3-small"),
        ({"EMBEDDING_MODEL": "scripted/x.yaml", "EMBEDDING_USE_AZURE": "True"}, "scripted/x.yaml"),
    ],
)
def test_the_embedding_model(tmp_path: Path, variables: dict[str, str], name: str) -> None:
    choice = embedding_of(settings(tmp_path, **variables))
    assert choice is not None
    assert (choice.model, choice.document()) == (name, {"model": name})
    assert embedding_of(settings(tmp_path)) is None


def test_prices_of_the_user(tmp_path: Path) -> None:
    steps = {
        "code": {"model": "a", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6},
        "judge": {
            "model": "b",
            "input_cost_per_token": 1,
            "output_cost_per_token": 2,
            "cache_read_input_token_cost": 0,
        },
    }
    given = {"b": {"input": 3.0, "output": 15.0, "cached": 0.3}, "gpt-4o": {"input": 0, "output": 0}}
    found = settings(tmp_path, steps, FTAGENT_MODEL_PRICES=json.dumps(given))
    assert prices_of(found) == {"a": Price(1e-6, 2e-6), "b": Price(3e-6, 15e-6, 3e-7), "gpt-4o": Price(0, 0)}
    # Prices are no parameters of a request.
    assert models_of(found)["code"] == ModelChoice("a")


def test_half_a_price_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="code: give both"):
        prices_of(settings(tmp_path, {"code": {"input_cost_per_token": 1}}))


async def test_prices_come_from_the_user_else_from_the_list(tmp_path: Path) -> None:
    client = built(tmp_path, FTAGENT_MODEL_PRICES='{"gpt-4o": {"input": 1, "output": 2}}')
    assert client.price("gpt-4o") == client.backend.price("gpt-4o") == Price(1e-6, 2e-6)
    known = client.price("gpt-4o-mini")
    assert known is not None
    assert 0 < known.prompt < known.completion < 1e-5
    assert client.price("no-such-model") is None
    await client.close()


@pytest.mark.parametrize(
    "variables",
    [
        {"CHAT_MODEL": "my-own"},
        {"FT_JUDGE_MODEL": "my-own"},
        {"FT_WEAK_MODELS": '["gpt-4o", "my-own"]'},
        {"EMBEDDING_MODEL": "my-own"},
        {"LITELLM_CHAT_MODEL_MAP": '{"reflect": {"model": "my-own"}}'},
    ],
)
def test_a_cap_needs_every_price(tmp_path: Path, variables: dict[str, str]) -> None:
    with pytest.raises(RequestError, match="--budget-usd: the price of my-own is unknown") as caught:
        check_prices(built(tmp_path, **variables))
    assert "\n" not in str(caught.value)
    priced = {"FTAGENT_MODEL_PRICES": '{"my-own": {"input": 1, "output": 2}}'}
    check_prices(built(tmp_path, **variables, **priced))


def test_scripted_models_are_read_before_a_run(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("replies:\n  - {role: code, txt: a}\n")
    with pytest.raises(RequestError, match=r"script.yaml:2: replies.0.txt"):
        built(tmp_path, check=True, CHAT_MODEL=f"scripted/{script}")
    with pytest.raises(RequestError, match="No such file"):
        built(tmp_path, check=True, CHAT_MODEL="scripted/nowhere.yaml")


async def test_a_map_mixes_scripted_models(tmp_path: Path) -> None:
    for name in ("a", "b"):
        replies = f"replies: [{{role: code, text: {name}}}, {{role: judge, text: {name}}}]"
        (tmp_path / f"{name}.yaml").write_text(f"prices: {{input: 1, output: 1}}\n{replies}\n")
    steps = json.dumps({"judge": {"model": f"scripted/{tmp_path}/b.yaml"}})
    client = built(
        tmp_path, check=True, CHAT_MODEL=f"scripted/{tmp_path}/a.yaml", LITELLM_CHAT_MODEL_MAP=steps,
        EMBEDDING_MODEL=f"scripted/{tmp_path}/a.yaml",
    )  # fmt: skip
    check_prices(client)
    said = [await client.chat(role, CallPlace(0, "code"), [Message("user", "x")]) for role in ("code", "judge")]
    assert [reply.content for reply in said] == ["a", "b"]
    assert len((await client.embed(["text"]))[0]) == 64
    await client.close()


async def test_retries_of_the_judge_are_its_own(tmp_path: Path) -> None:
    script = "replies:\n  - {role: judge, fail: {kind: server}}\n  - {role: code, fail: {kind: server}}\n"
    (tmp_path / "s.yaml").write_text(script)
    notes: list[str] = []
    client = built(
        tmp_path, notes, CHAT_MODEL=f"scripted/{tmp_path}/s.yaml", MAX_RETRY="1", FT_JUDGE_RETRY="3",
        RETRY_WAIT_SECONDS="0",
    )  # fmt: skip
    for role, requests in (("code", 2), ("judge", 4)):
        with pytest.raises(Exception, match=f"no reply after {requests} requests"):
            await client.chat(role, CallPlace(0, "code"), [Message("user", "x")])  # type: ignore[arg-type]
    assert len(notes) == 1 + 3
    await client.close()


async def test_caches_follow_their_four_settings(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("replies: [{role: code, text: hi}]")
    place, asked = CallPlace(0, "code"), [Message("user", "x")]
    base = {"CHAT_MODEL": f"scripted/{tmp_path}/s.yaml", "EMBEDDING_MODEL": f"scripted/{tmp_path}/s.yaml"}
    path = tmp_path / "cache" / "llm.sqlite"
    plain = built(tmp_path, **base)
    await plain.chat("code", place, asked)
    await plain.embed(["a"])
    assert not path.exists()
    writing = built(tmp_path, **base, DUMP_CHAT_CACHE="True", DUMP_EMBEDDING_CACHE="True")
    await writing.chat("code", place, asked)
    await writing.embed(["a"])
    await writing.close()
    (tmp_path / "s.yaml").write_text("replies: []")
    reading = built(tmp_path, **base, USE_CHAT_CACHE="True", USE_EMBEDDING_CACHE="True")
    assert (await reading.chat("code", place, asked)).content == "hi"
    assert await reading.embed(["a"]) == await plain.embed(["a"])
    await reading.close()


def test_a_secret_too_short_to_redact_is_told(tmp_path: Path) -> None:
    notes: list[str] = []
    built(tmp_path, notes, OPENAI_API_KEY="abc")
    assert notes == ["1 secret(s) of fewer than 6 characters cannot be redacted from texts"]
