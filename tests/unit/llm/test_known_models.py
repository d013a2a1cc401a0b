"""What is known about models by name, against the list that LiteLLM ships."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ftagent.llm import known_models
from ftagent.llm.parameters import is_strict, response_format
from ftagent.llm.streams import LARGEST_REPLY, Parts, usage_of
from ftagent.llm.types import Price, Usage


@pytest.mark.parametrize("name", ["gpt-4o", "openai/gpt-4o", "azure/gpt-4o"])
def test_a_model_is_known_with_and_without_its_provider(name: str) -> None:
    assert known_models.price_of(name) == Price(2.5e-06, 1e-05, 1.25e-06)
    assert known_models.context_tokens_of(name) == 128_000
    assert known_models.reply_tokens_of(name) == 16_384
    assert known_models.follows_schema(name)


@pytest.mark.parametrize("name", ["my-own-model", "openai/my-own-model", "groq/gpt-4o", "anthropic/gpt-4o"])
def test_what_is_unknown_has_no_price_and_cautious_sizes(name: str) -> None:
    assert known_models.price_of(name) is None
    assert known_models.context_tokens_of(name) == known_models.UNKNOWN_CONTEXT_TOKENS
    assert known_models.reply_tokens_of(name) == known_models.UNKNOWN_REPLY_TOKENS
    assert not known_models.follows_schema(name)


def test_free_is_not_unknown() -> None:
    assert known_models.follows_schema("ollama/llama3.1")
    assert known_models.price_of("ollama/llama3.1") == Price(0.0, 0.0)


def test_embeddings_have_a_price() -> None:
    assert known_models.price_of("text-embedding-ada-002") == Price(1e-07, 0.0)


def test_prompts_stay_below_where_tokens_cost_more() -> None:
    facts = known_models.facts("gemini/gemini-2.5-pro")
    assert facts["max_input_tokens"] > 200_000
    assert facts["input_cost_per_token_above_200k_tokens"] > facts["input_cost_per_token"]
    assert known_models.context_tokens_of("gemini/gemini-2.5-pro") == 200_000


def test_reasoning_that_costs_more_is_not_charged_too_low() -> None:
    name, known = next(
        (name, known)
        for name, known in known_models.price_list().items()
        if known.get("output_cost_per_reasoning_token", 0) > known.get("output_cost_per_token", 1)
    )
    price = known_models.price_of(name)
    assert price is not None
    assert price.completion == known["output_cost_per_reasoning_token"]


def test_looking_up_a_price_does_not_import_litellm() -> None:
    code = "import sys; from ftagent.llm.known_models import price_of; assert price_of('gpt-4o')"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'litellm' not in sys.modules"], check=True, timeout=60)


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({"prompt_tokens": 3, "completion_tokens": None}, Usage(3)),
        (
            {"prompt_tokens": 9, "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 5},
             "prompt_tokens_details": {"cached_tokens": 4}},
            Usage(9, 7, 5, 4),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 5}},
         Usage(9, 5, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 50}},
         Usage(9, 2, 0, 9)),
        ({"prompt_tokens": -1, "completion_tokens": "many", "completion_tokens_details": None}, None),
    ],
)  # fmt: skip
def test_usage_as_providers_write_it(raw: object, usage: Usage | None) -> None:
    assert usage_of(raw) == usage


def test_a_reply_is_bounded() -> None:
    class Delta:
        content = "x" * (LARGEST_REPLY // 2 + 1)
        reasoning_content = None

    parts = Parts(finish_reason="stop")
    parts.add(Delta)
    assert not parts.too_large
    parts.add(Delta)
    parts.add(Delta)
    assert parts.too_large
    reply = parts.reply()
    assert (len(reply.content), reply.finish_reason) == (LARGEST_REPLY, "length")


CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def test_strict_only_where_openai_takes_it() -> None:
    assert is_strict(CLOSED)
    assert is_strict({**CLOSED, "properties": {"a": {"type": "array", "items": CLOSED}}})
    assert not is_strict({**CLOSED, "required": []})
    assert not is_strict({**CLOSED, "additionalProperties": True})
    assert not is_strict({**CLOSED, "properties": {"a": {"type": "object"}}})
    assert response_format({**CLOSED, "title": "My reply"}) == {
        "type": "json_schema",
        "json_schema": {"name": "My_reply", "schema": {**CLOSED, "title": "My reply"}, "strict": True},
    }
    assert "strict" not in response_format({"type": "object"})["json_schema"]
