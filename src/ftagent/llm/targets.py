"""Where a request for a model goes: provider, address, key."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftagent.llm.failures import Asked, unknown_provider
from ftagent.llm.library import load_litellm
from ftagent.llm.types import CallFailed, ModelChoice

BASES = ("OPENAI_API_BASE", "OPENAI_BASE_URL")
KEYS: Mapping[str, tuple[str, ...]] = {
    "azure": ("AZURE_API_KEY", "OPENAI_API_KEY"),
    "cohere_chat": ("COHERE_API_KEY",),
    "fireworks_ai": ("FIREWORKS_AI_API_KEY", "FIREWORKS_API_KEY"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "huggingface": ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
    "perplexity": ("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
    "together_ai": ("TOGETHERAI_API_KEY", "TOGETHER_API_KEY"),
}
"""Variables that hold a provider's key, where they are not PROVIDER_API_KEY."""
FURTHER: Mapping[str, Mapping[str, str]] = {
    "azure": {"AZURE_API_VERSION": "api_version", "AZURE_AD_TOKEN": "azure_ad_token"},
    "bedrock": {
        "AWS_ACCESS_KEY_ID": "aws_access_key_id",
        "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
        "AWS_SESSION_TOKEN": "aws_session_token",
        "AWS_REGION_NAME": "aws_region_name",
        "AWS_PROFILE_NAME": "aws_profile_name",
    },
    "vertex_ai": {
        "VERTEXAI_PROJECT": "vertex_project",
        "VERTEXAI_LOCATION": "vertex_location",
        "GOOGLE_APPLICATION_CREDENTIALS": "vertex_credentials",
    },
}
"""What else a provider wants, as LiteLLM's parameters."""


@dataclass(frozen=True)
class Target:
    """`model` as LiteLLM wants it, with the provider in front where it does not know by itself."""

    model: str
    provider: str
    asked: Asked
    api_base: str = ""
    api_key: str = field(default="", repr=False)
    further: Mapping[str, Any] = field(default_factory=dict, repr=False)


def embedding_model(name: str, use_azure: bool) -> str:
    """EMBEDDING_MODEL after EMBEDDING_USE_AZURE, as LiteLLM names it."""
    return f"azure/{name}" if use_azure and not name.startswith("azure/") else name


def target_of(choice: ModelChoice, credentials: Mapping[str, str]) -> Target:
    """Where `choice` goes. A name without provider goes to OPENAI_API_BASE (or `choice.api_base`) where one is set,
    unless it is the name of another provider's model and that provider's key is there.

    `credentials` are values by variable name; what is missing is looked up in the process's own variables.
    Raises CallFailed (`unknown_model`) for a name that nobody is known to serve.
    """
    litellm = load_litellm()
    prefix, _, rest = choice.model.partition("/")
    known = _known_provider(litellm, choice.model)
    base = choice.api_base or _first(BASES, credentials)
    if rest and known and (prefix in {str(getattr(name, "value", name)) for name in litellm.provider_list}):
        model, provider = choice.model, known
        if provider not in ("openai", "azure"):
            base = choice.api_base or _first((f"{_variable(provider)}_API_BASE",), credentials)
        elif provider == "azure":
            base = choice.api_base or _first(("AZURE_API_BASE", *BASES), credentials)
    elif known not in ("", "openai") and _first(key_names(known), credentials):
        model, provider, base = choice.model, known, ""
    elif base or known == "openai":
        model, provider = f"openai/{choice.model}", "openai"
    elif known:
        model, provider = choice.model, known
    else:
        raise CallFailed(f"{choice.model}: {unknown_provider(choice.model)}", "unknown_model")
    key = choice.api_key or _first(key_names(provider), credentials)
    further = {parameter: value for name, parameter in FURTHER.get(provider, {}).items()
               if (value := _first((name,), credentials))}  # fmt: skip
    secrets = tuple(value for value in (key, *map(str, further.values())) if len(value) >= 6)
    asked = Asked(choice.model, shown(base), key_names(provider)[0], secrets)
    return Target(model, provider, asked, base, key, further)


def key_names(provider: str) -> tuple[str, ...]:
    """Variables that may hold the key of `provider`; the first one is the one to name to a user."""
    return KEYS.get(provider, (f"{_variable(provider)}_API_KEY",))


def shown(address: str) -> str:
    """An address without user, password and query."""
    return re.sub(r"(?<=//)[^/@]*@", "", address).partition("?")[0]


def _variable(provider: str) -> str:
    return re.sub(r"\W", "_", provider).upper()


def _first(names: tuple[str, ...], credentials: Mapping[str, str]) -> str:
    return next((value for name in names if (value := credentials.get(name) or os.environ.get(name))), "")


def _known_provider(litellm: Any, model: str) -> str:
    """The provider that LiteLLM sees in a name, "" where it sees none."""
    try:
        return str(litellm.get_llm_provider(model=model)[1])
    except litellm.exceptions.BadRequestError:
        return ""
