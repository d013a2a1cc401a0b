"""What is said to a language model, what it says, and who can say it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ftagent.core.errors import FtagentError
from ftagent.core.types import CallPlace

Role = Literal["propose", "code", "repair", "reflect", "judge", "script"]
"""Who asks. `script` is code in a workspace that asks through the broker."""
ROLES: tuple[Role, ...] = ("propose", "code", "repair", "reflect", "judge", "script")
FailureKind = Literal[
    "authentication", "unknown_model", "refused", "too_long", "rate_limit", "server", "time_out", "cut", "parameter"
]
"""Why one request failed. The first four are final, the others are worth another try; after `parameter` (one that the
model does not take) the same request goes without it, at once."""
RETRIED: frozenset[FailureKind] = frozenset({"rate_limit", "server", "time_out", "cut", "parameter"})


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class ModelChoice:
    """A model with its parameters, for one role. `None` leaves a parameter to the provider."""

    model: str
    """As LiteLLM names it, or `scripted/FILE`."""
    temperature: float | None = 1.0
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    max_tokens: int | None = None
    """Largest reply, reasoning included."""
    stream: bool = True
    time_limit: float = 600.0
    """Seconds for one request, streaming included."""
    strip_thinking: bool = False
    """Remove `<think>…</think>` from replies."""
    api_key: str = field(default="", repr=False)
    api_base: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further parameters that are passed on as they are."""

    def document(self) -> dict[str, Any]:
        """What decides the reply, as plain JSON: no credentials, no time limit."""
        names = ("model", "temperature", "frequency_penalty", "presence_penalty", "reasoning_effort", "max_tokens")
        chosen = {name: getattr(self, name) for name in names}
        return {name: value for name, value in chosen.items() if value is not None} | dict(self.extra)


@dataclass(frozen=True)
class ChatRequest:
    """One request. `role` and `place` say who asks; they are no part of what is sent."""

    choice: ModelChoice
    messages: tuple[Message, ...]
    role: Role = "propose"
    place: CallPlace = field(default_factory=lambda: CallPlace(None, "propose"))
    schema: Mapping[str, Any] | None = None
    """JSON schema that the reply must follow, for models that can be held to one."""

    def document(self) -> dict[str, Any]:
        """As plain JSON, without credentials: what a transcript keeps and what `digest` is of."""
        document = {
            "parameters": self.choice.document(),
            "messages": [{"role": message.role, "content": message.content} for message in self.messages],
        }
        return document | ({"schema": dict(self.schema)} if self.schema is not None else {})

    def digest(self) -> str:
        """SHA-256 in hex."""
        return hashlib.sha256(json.dumps(self.document(), sort_keys=True).encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True)
class Usage:
    """Tokens of one reply, as the provider counts. `completion` includes `reasoning`, `prompt` includes `cached`."""

    prompt: int = 0
    completion: int = 0
    reasoning: int = 0
    cached: int = 0


@dataclass(frozen=True)
class Price:
    """Dollars per token. `cached`: of prompt tokens that the provider had cached."""

    prompt: float
    completion: float
    cached: float | None = None

    def of(self, usage: Usage) -> float:
        """Dollars."""
        cached = self.prompt if self.cached is None else self.cached
        return (usage.prompt - usage.cached) * self.prompt + usage.cached * cached + usage.completion * self.completion


@dataclass(frozen=True)
class ChatReply:
    """One reply. An empty `content` is a reply too: whoever asked decides what to do about it."""

    content: str
    reasoning: str = ""
    finish_reason: str = "stop"
    """`stop`, `length` (cut by max_tokens), `content_filter` (refused)."""
    refusal: str = ""
    usage: Usage = Usage()

    def document(self) -> dict[str, Any]:
        """As plain JSON, for transcripts and caches."""
        return {"content": self.content, "reasoning": self.reasoning, "finish_reason": self.finish_reason,
                "refusal": self.refusal, "usage": vars(self.usage)}  # fmt: skip

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ChatReply:
        return cls(**{**document, "usage": Usage(**document["usage"])})


class CallFailed(FtagentError):
    """One request failed. `kind` says why, `retry_after` what the server asked for in seconds.

    `usage` is what a reply that was cut had cost by then, where it is known.
    """

    def __init__(
        self, message: str, kind: FailureKind, retry_after: float | None = None, usage: Usage | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after
        self.usage = usage or Usage()

    @property
    def retried(self) -> bool:
        return self.kind in RETRIED


class Backend(Protocol):
    """Makes one attempt at a request and knows models. It never retries, meters or keeps anything."""

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Raises CallFailed."""
        ...

    async def embed(self, choice: ModelChoice, texts: Sequence[str]) -> tuple[list[list[float]], Usage]:
        """One vector per text. Raises CallFailed."""
        ...

    def price(self, model: str) -> Price | None:
        """None where unknown."""
        ...

    def context_tokens(self, model: str) -> int:
        """Largest prompt; a cautious default where unknown."""
        ...

    def reply_tokens(self, model: str) -> int:
        """Largest reply, for the worst case of a call; a cautious default where unknown."""
        ...

    def count_tokens(self, model: str, text: str) -> int:
        """Tokens of a text, or a good estimate."""
        ...

    def follows_schema(self, model: str) -> bool:
        """Whether replies can be held to a JSON schema."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
