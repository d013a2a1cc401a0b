"""The backend against a real language model: SmolLM2-135M by llama.cpp, through LiteLLM, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from ftagent.llm.litellm_backend import LiteLLMBackend
from ftagent.llm.types import CallFailed, ChatRequest, Message, ModelChoice
from support.local_model import ALIAS, CONTEXT_TOKENS, local_model

pytestmark = pytest.mark.model
pytest.importorskip("xllamacpp", reason="serves the local model")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local_model() as url:
        yield url


@pytest.fixture
async def backend(address: str) -> AsyncIterator[LiteLLMBackend]:
    made = LiteLLMBackend({"OPENAI_API_BASE": address})
    yield made
    await made.close()


def request(text: str, stream: bool, max_tokens: int = 12, **details: object) -> ChatRequest:
    choice = ModelChoice(ALIAS, temperature=0.0, max_tokens=max_tokens, stream=stream, time_limit=120)
    return ChatRequest(choice, (Message("user", text),), **details)  # type: ignore[arg-type]


async def test_whole_and_streamed_replies_are_the_same(backend: LiteLLMBackend) -> None:
    question = "Write the numbers one to ten."
    # Earlier prompts are cached by the server and change the last bits of what it computes.
    await backend.complete(request(question, stream=False))
    whole, streamed = [await backend.complete(request(question, stream=stream)) for stream in (False, True)]
    assert "two" in whole.content.lower() or "2" in whole.content
    assert (streamed.content, streamed.finish_reason) == (whole.content, whole.finish_reason)
    for reply in (whole, streamed):
        assert reply.usage.prompt > 10
        assert 3 < reply.usage.completion <= 12
        # What the server counts is near what is counted here, with another tokenizer.
        assert reply.usage.completion == pytest.approx(backend.count_tokens(ALIAS, reply.content), abs=6)


@pytest.mark.parametrize("stream", [False, True])
async def test_max_tokens_is_told_as_length(backend: LiteLLMBackend, stream: bool) -> None:
    reply = await backend.complete(request("Tell me a long story about a fox.", stream, max_tokens=5))
    assert (reply.finish_reason, reply.usage.completion) == ("length", 5)
    assert reply.content


class Plan(BaseModel):
    """What a proposal looks like, in small."""

    model_config = ConfigDict(extra="forbid")

    idea: str = Field(max_length=30)
    effect: Literal["better", "worse", "same"]
    steps: int = Field(ge=1, le=9)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_follows_the_schema(backend: LiteLLMBackend, stream: bool) -> None:
    text = "Propose one change to how a small language model is trained. Answer in JSON."
    asked = request(text, stream, max_tokens=80, schema=Plan.model_json_schema())
    reply = await backend.complete(asked)
    assert reply.finish_reason == "stop"
    plan = Plan.model_validate_json(reply.content)
    assert plan.idea
    assert reply.content.startswith("{")


async def test_a_prompt_that_is_too_long_is_told_with_sizes(backend: LiteLLMBackend) -> None:
    with pytest.raises(CallFailed) as failed:
        await backend.complete(request("word " * CONTEXT_TOKENS * 2, stream=True))
    assert failed.value.kind == "too_long"
    assert f"{CONTEXT_TOKENS} tokens" in str(failed.value)
