"""From the failure of a call to what a user is told and how far it reaches: this experiment, or the whole run."""

from __future__ import annotations

from ftagent.core.errors import AgentUnavailable, FtagentError, NoUsableReply
from ftagent.llm.types import CallFailed, ModelChoice, Role


def explained(error: CallFailed, role: Role, choice: ModelChoice, requests: int) -> FtagentError:
    """The error to raise for the last failure of a call that took so many requests."""
    model = choice.model
    match error.kind:
        case "authentication":
            return AgentUnavailable(
                f"{model}: the provider does not accept the key; set {key_variable(model)} ({error})"
            )
        case "unknown_model":
            return AgentUnavailable(
                f"{model}: the provider has no such model; set CHAT_MODEL (or LITELLM_CHAT_MODEL_MAP for one step) to "
                f"a name that LiteLLM knows, such as openai/NAME for an OpenAI-compatible OPENAI_API_BASE ({error})"
            )
        case "too_long":
            return NoUsableReply(f"{role}: the prompt is too long for {model}: {error}")
        case "refused":
            return NoUsableReply(f"{role}: {model} refuses the request: {error}")
        case _:
            times = "1 request" if requests == 1 else f"{requests} requests"
            return AgentUnavailable(
                f"{model}: no reply after {times}; the last error was: {error}; "
                "`ftagent resume` goes on once it answers"
            )


def key_variable(model: str) -> str:
    """The variable that holds the key of a model's provider, by the model's name."""
    provider, slash, _ = model.partition("/")
    return f"{provider.upper().replace('-', '_')}_API_KEY" if slash else "OPENAI_API_KEY"
