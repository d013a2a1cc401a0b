"""Who serves language models, and which variables each of them wants."""

from __future__ import annotations

from dataclasses import dataclass

from ftagent.core.errors import RequestError


@dataclass(frozen=True)
class Provider:
    """One choice of `ftagent init`."""

    name: str
    """As `--provider` takes it."""
    title: str
    key: str = ""
    """The variable of its key."""
    model: str = ""
    """A suggestion; "" where only the user can know."""
    prefix: str = ""
    """What LiteLLM wants in front of the name of its models."""
    base: str = ""
    """The variable of its address, where that is not fixed."""
    base_example: str = ""
    needs_key: bool = True

    def model_name(self, given: str) -> str:
        """`given` as LiteLLM names it."""
        return given if given.startswith(self.prefix) else f"{self.prefix}{given}"


PROVIDERS = (
    Provider("openai", "OpenAI", "OPENAI_API_KEY", "gpt-5.2"),
    Provider("azure", "Azure OpenAI", "AZURE_API_KEY", "", "azure/", "AZURE_API_BASE", "https://NAME.openai.azure.com"),
    Provider("anthropic", "Anthropic", "ANTHROPIC_API_KEY", "anthropic/claude-sonnet-5-5", "anthropic/"),
    Provider("gemini", "Google Gemini", "GEMINI_API_KEY", "gemini/gemini-flash-latest", "gemini/"),
    Provider("openrouter", "OpenRouter", "OPENROUTER_API_KEY", "openrouter/openai/gpt-5.2", "openrouter/"),
    Provider("deepseek", "DeepSeek", "DEEPSEEK_API_KEY", "deepseek/deepseek-v4-flash", "deepseek/"),
    Provider(
        "local", "a local or other OpenAI-compatible server", "OPENAI_API_KEY", "", "openai/", "OPENAI_API_BASE",
        "http://127.0.0.1:8000/v1", needs_key=False,
    ),
    Provider("none", "none: agent search, without a language model", needs_key=False),
)  # fmt: skip


def provider_of(text: str) -> Provider:
    """The provider of that name or number (from 1). Raises RequestError naming the valid ones."""
    for number, provider in enumerate(PROVIDERS, 1):
        if text.strip().lower() in {provider.name, str(number)}:
            return provider
    raise RequestError(f"no provider {text!r}; valid: {', '.join(provider.name for provider in PROVIDERS)}")


def served_models(base: str, key: str) -> list[str]:
    """Names that an OpenAI-compatible server says it serves; none where it does not answer in three seconds."""
    import json
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    if not base.startswith(("http://", "https://")):
        return []
    request = Request(f"{base.rstrip('/')}/models", headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urlopen(request, timeout=3) as answer:
            listed = json.loads(answer.read(1_000_000))
        return [str(entry["id"]) for entry in listed["data"]]
    except (URLError, OSError, ValueError, KeyError, TypeError):
        return []
