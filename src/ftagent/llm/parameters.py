"""Which parameters a request carries: what was chosen, without what the model is known not to take."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ftagent.llm.library import load_litellm
from ftagent.llm.targets import Target
from ftagent.llm.types import ModelChoice

RENAMED = {"max_tokens": "max_completion_tokens"}
"""What a refused parameter is tried as next."""


SAMPLING = ("temperature", "frequency_penalty", "presence_penalty", "reasoning_effort")
OPENAI_NAMES = frozenset({"openai", "azure"})
"""Providers whose parameters LiteLLM passes on under the same names."""


class Parameters:
    """Remembers, for one backend, what models refused; `note` gets one line for each."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._left_out: dict[tuple[str, str], set[str]] = {}
        self._checked: set[tuple[str, frozenset[str]]] = set()

    def of(self, choice: ModelChoice, schema: Mapping[str, Any] | None, target: Target) -> dict[str, Any]:
        """All that decides the reply but model and messages."""
        wanted: dict[str, Any] = {
            "temperature": choice.temperature,
            # 0 is what every provider does without the parameter, and some refuse the parameter.
            "frequency_penalty": choice.frequency_penalty or None,
            "presence_penalty": choice.presence_penalty or None,
            "reasoning_effort": choice.reasoning_effort,
            "max_tokens": choice.max_tokens,
            "response_format": response_format(schema) if schema is not None else None,
            "stream": True if choice.stream else None,
            "stream_options": {"include_usage": True} if choice.stream else None,
            **choice.extra,
        }
        self._tell_dropped(target, wanted)
        left_out = self._left_out.get((choice.model, target.api_base), set())
        for name in left_out & RENAMED.keys():
            wanted[RENAMED[name]] = wanted[name]
        if "stream" in left_out:
            wanted["stream_options"] = None
        return {name: value for name, value in wanted.items() if value is not None and name not in left_out}

    def refused(self, model: str, name: str) -> bool:
        """Whether `model` is known not to take the parameter."""
        return any(name in names for (known, _), names in self._left_out.items() if known == model)

    def leave_out(self, target: Target, name: str) -> None:
        """From now on."""
        left_out = self._left_out.setdefault((target.asked.model, target.api_base), set())
        if name not in left_out:
            left_out.add(name)
            self._note(f"{target.asked} does not take {name}: left out from now on")

    def _tell_dropped(self, target: Target, wanted: Mapping[str, Any]) -> None:
        """LiteLLM drops silently what it knows a model not to take: leave it out ourselves, with a note."""
        sampling = {name: wanted[name] for name in SAMPLING if wanted[name] is not None}
        if (target.model, frozenset(sampling)) in self._checked:
            return
        self._checked.add((target.model, frozenset(sampling)))
        litellm = load_litellm()
        named = {"model": target.model.removeprefix(f"{target.provider}/"), "custom_llm_provider": target.provider}
        taken = set(litellm.get_supported_openai_params(**named) or sampling)
        if target.provider in OPENAI_NAMES:
            # Some of OpenAI's models take the parameter, but not this value.
            taken &= litellm.get_optional_params(**named, drop_params=True, **sampling).keys()
        for name in sampling.keys() - taken:
            self.leave_out(target, name)


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """JSON schema mode. `strict` only for schemas within what OpenAI's strict mode takes."""
    name = re.sub(r"\W", "_", str(schema.get("title") or "reply"))[:64]
    described = {"name": name, "schema": dict(schema)} | ({"strict": True} if is_strict(schema) else {})
    return {"type": "json_schema", "json_schema": described}


def is_strict(schema: Any) -> bool:
    """Whether every object in `schema` is closed and requires all of its properties."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "object" or "properties" in schema:
            closed = schema.get("additionalProperties") is False
            if not closed or set(schema.get("required", ())) != set(schema.get("properties", {})):
                return False
        return all(is_strict(value) for value in schema.values())
    return all(is_strict(value) for value in schema) if isinstance(schema, list | tuple) else True
