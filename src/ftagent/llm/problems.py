"""From the failure of a call to what a user is told and how far it reaches: this experiment, or the whole run."""

from __future__ import annotations

from ftagent.core.errors import AgentUnavailable, FtagentError, NoUsableReply
from ftagent.llm.retry import LONGEST_RETRY_AFTER
from ftagent.llm.types import CallFailed, Role


def explained(error: CallFailed, role: Role, model: str, requests: int) -> FtagentError:
    """The error to raise for the last failure of a call to `model` that took so many requests."""
    told = str(error) if model in str(error) else f"{model}: {error}"
    match error.kind:
        case "authentication":
            judge = "FT_JUDGE_API_KEY for the judge, " if role == "judge" else ""
            return AgentUnavailable(
                f"{told}; set {judge}the provider's key (OPENAI_API_KEY, ANTHROPIC_API_KEY, ...) or OPENAI_API_BASE"
            )
        case "unknown_model":
            return AgentUnavailable(
                f"{told}; set CHAT_MODEL, or LITELLM_CHAT_MODEL_MAP for one step, to a model that is there, "
                "or OPENAI_API_BASE to where it is"
            )
        case "too_long":
            return NoUsableReply(f"{role}: the prompt is too long ({told})")
        case "refused":
            return NoUsableReply(f"{role}: {told}")
        case _:
            times = "1 request" if requests == 1 else f"{requests} requests"
            message = f"{model}: no reply after {times} ({error}); `ftagent resume` goes on once it answers"
            return AgentUnavailable(message, (error.retry_after or 0) <= LONGEST_RETRY_AFTER, error.retry_after)
