"""What is known about models by name: prices and sizes, from the list that LiteLLM ships, without importing LiteLLM."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ftagent.core.errors import FtagentError
from ftagent.llm.types import Price

PRICE_LIST = "model_prices_and_context_window_backup.json"
UNKNOWN_CONTEXT_TOKENS = 8_192
"""Prompts that nearly every model takes."""
UNKNOWN_REPLY_TOKENS = 16_384
"""For the worst case of a call: more than most replies, reasoning included."""
SCHEMA_PROVIDERS = frozenset(
    {"predibase", "fireworks_ai", "lm_studio", "nebius", "databricks", "hosted_vllm", "ollama", "ollama_chat"}
)
"""Those that hold every model to a JSON schema."""


@lru_cache(maxsize=1)
def price_list() -> Mapping[str, Mapping[str, Any]]:
    """Model -> facts. Raises FtagentError when LiteLLM is not installed whole."""
    spec = importlib.util.find_spec("litellm")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / PRICE_LIST
        if path.is_file():
            listed: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            return listed
    raise FtagentError(
        f"the price list of litellm ({PRICE_LIST}) is missing; run `pip install --force-reinstall litellm`"
    )


def facts(model: str) -> Mapping[str, Any]:
    """What the list says of `model`, with or without its provider in front; {} where it says nothing."""
    listed = price_list()
    provider, _, name = model.partition("/")
    if model in listed:
        return listed[model]
    # `openai/gpt-4o` is listed as `gpt-4o`. `ollama/gpt-4o` is something else.
    found = listed.get(name, {})
    return found if found.get("litellm_provider") == provider else {}


def price_of(model: str) -> Price | None:
    """Dollars per token; None where unknown. Where reasoning costs more than other output, all output does."""
    known = facts(model)
    prompt, completion = known.get("input_cost_per_token"), known.get("output_cost_per_token")
    if prompt is None or completion is None:
        return None
    return Price(prompt, max(completion, known.get("output_cost_per_reasoning_token") or 0.0),
                 known.get("cache_read_input_token_cost"))  # fmt: skip


def context_tokens_of(model: str) -> int:
    """Largest prompt. Where long prompts cost more per token, the longest one at the price that `price_of` gives."""
    known = facts(model)
    tokens = int(known.get("max_input_tokens") or known.get("max_tokens") or UNKNOWN_CONTEXT_TOKENS)
    tiers = (re.fullmatch(r"input_cost_per_token_above_(\d+)k_tokens", name) for name in known)
    return min([tokens, *(1000 * int(tier[1]) for tier in tiers if tier)])


def reply_tokens_of(model: str) -> int:
    """Largest reply."""
    known = facts(model)
    return int(known.get("max_output_tokens") or known.get("max_tokens") or UNKNOWN_REPLY_TOKENS)


def follows_schema(model: str) -> bool:
    """Whether replies can be held to a JSON schema."""
    return bool(facts(model).get("supports_response_schema")) or model.partition("/")[0] in SCHEMA_PROVIDERS
