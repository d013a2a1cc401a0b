"""Replies put together from what LiteLLM hands out, streamed or whole, within bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ftagent.llm.types import ChatReply, Usage

LARGEST_REPLY = 4_000_000
"""Characters of content and reasoning; the rest of a larger reply is not read."""
MOST_CHUNKS = 4_096
"""Chunks that LiteLLM's wrapper may hold: it keeps all of them, several kilobytes each."""
FINISHED = frozenset({"stop", "length", "content_filter"})


@dataclass
class Parts:
    """What has arrived of a reply."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage | None = None
    size: int = 0

    def add(self, message: Any) -> None:
        """Take a message or the delta of one."""
        for kept, name in ((self.content, "content"), (self.reasoning, "reasoning_content")):
            text = getattr(message, name, None)
            if isinstance(text, str) and text:
                kept.append(text[: max(0, LARGEST_REPLY - self.size)])
                self.size += len(text)
        if self.too_large:
            self.finish_reason = "length"

    @property
    def too_large(self) -> bool:
        return self.size > LARGEST_REPLY

    @property
    def text(self) -> str:
        """All that was written, for counting."""
        return "".join((*self.reasoning, *self.content))

    def reply(self) -> ChatReply:
        reason = self.finish_reason or "stop"
        return ChatReply(
            content="".join(self.content),
            reasoning="".join(self.reasoning),
            finish_reason=reason if reason in FINISHED else "stop",
            refusal="".join(self.refusal),
            usage=self.usage or Usage(),
        )


class Observed:
    """A provider's stream, passed on as it is. LiteLLM drops refusals and makes up a finish_reason and usage where
    the provider sent none, so what was really sent is read here."""

    def __init__(self, stream: Any, parts: Parts) -> None:
        self._stream = stream
        self._iterator: AsyncIterator[Any] = aiter(stream)
        self._parts = parts

    def __aiter__(self) -> Observed:
        return self

    async def __anext__(self) -> Any:
        chunk = await anext(self._iterator)
        self._parts.usage = usage_of(getattr(chunk, "usage", None)) or self._parts.usage
        for choice in getattr(chunk, "choices", None) or ():
            refusal = getattr(getattr(choice, "delta", None), "refusal", None)
            if isinstance(refusal, str) and len(self._parts.refusal) < MOST_CHUNKS:
                self._parts.refusal.append(refusal)
        return chunk

    async def aclose(self) -> None:
        close = getattr(self._stream, "aclose", None) or getattr(self._stream, "close", None)
        if close is not None and (closing := close()) is not None:
            await closing


async def read_stream(stream: Any, parts: Parts) -> None:
    """All of a stream into `parts`; a stream that ends without finish_reason leaves it None."""
    if hasattr(getattr(stream, "completion_stream", None), "__aiter__"):
        stream.completion_stream = Observed(stream.completion_stream, parts)
    async for chunk in stream:
        for choice in chunk.choices:
            parts.add(choice.delta)
        if parts.too_large:
            return
        if len(stream.chunks) > MOST_CHUNKS:
            del stream.chunks[:-2]
    sent = (usage_of(getattr(chunk, "usage", None)) for chunk in reversed(stream.chunks))
    parts.usage = parts.usage or next((usage for usage in sent if usage), None)
    parts.finish_reason = stream.received_finish_reason or stream.intermittent_finish_reason


def read_message(response: Any, parts: Parts) -> None:
    """A reply that came whole. Raises ValueError when it is none."""
    choices = getattr(response, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        raise ValueError("the answer has no 'choices'")
    message = choices[0].message
    parts.finish_reason = choices[0].finish_reason or "stop"
    parts.add(message)
    fields = getattr(message, "provider_specific_fields", None) or {}
    parts.refusal.append(getattr(message, "refusal", None) or fields.get("refusal") or "")
    parts.usage = usage_of(getattr(response, "usage", None))


def usage_of(raw: Any) -> Usage | None:
    """Tokens as a provider counted them; None where it did not."""
    prompt, completion = _number(raw, "prompt_tokens"), _number(raw, "completion_tokens")
    if not prompt and not completion:
        return None
    reasoning = _number(_part(raw, "completion_tokens_details"), "reasoning_tokens")
    cached = _number(_part(raw, "prompt_tokens_details"), "cached_tokens")
    # Some servers count reasoning beside the completion, some more cached tokens than there are.
    return Usage(prompt, max(completion, reasoning), reasoning, min(cached, prompt))


def _part(raw: Any, name: str) -> Any:
    return raw.get(name) if isinstance(raw, Mapping) else getattr(raw, name, None)


def _number(raw: Any, name: str) -> int:
    value = _part(raw, name)
    return int(value) if isinstance(value, int | float) and value > 0 else 0
