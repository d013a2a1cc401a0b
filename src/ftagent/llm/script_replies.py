"""What a script gets: the JSON of OpenAI's protocol. Equal replies give equal bytes, so nothing here tells a time."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from ftagent.llm.types import ChatReply

Document = dict[str, Any]


def completion(model: str, replies: Sequence[ChatReply]) -> bytes:
    """The answer to a request for `len(replies)` samples."""
    choices = [
        {"index": index, "message": {"role": "assistant", **_said(reply)}, "finish_reason": reply.finish_reason,
         "logprobs": None}
        for index, reply in enumerate(replies)
    ]  # fmt: skip
    return _encoded({**_head("chat.completion", model, replies), "choices": choices, "usage": _usage(replies)})


def chunks(model: str, replies: Sequence[ChatReply], with_usage: bool) -> bytes:
    """The same as server-sent events."""
    events = (_encoded(chunk) for chunk in _chunks(model, replies, with_usage))
    return b"".join(b"data: " + event + b"\n\n" for event in (*events, b"[DONE]"))


def _chunks(model: str, replies: Sequence[ChatReply], with_usage: bool) -> Iterator[Document]:
    head = _head("chat.completion.chunk", model, replies)
    for index, reply in enumerate(replies):
        for delta, reason in (({"role": "assistant", **_said(reply)}, None), ({}, reply.finish_reason)):
            choice = {"index": index, "delta": delta, "finish_reason": reason, "logprobs": None}
            yield {**head, "choices": [choice]}
    if with_usage:
        yield {**head, "choices": [], "usage": _usage(replies)}


def embeddings(model: str, vectors: Sequence[Sequence[float]], as_base64: bool) -> bytes:
    """The answer to a request for embeddings. How many tokens they took is not known here."""
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if as_base64 else list(vector)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return _encoded({"object": "list", "model": model, "data": data, "usage": usage})


def models(names: Sequence[str]) -> bytes:
    """The list of models."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "ftagent"} for name in names]
    return _encoded({"object": "list", "data": data})


def failure(status: int, code: str, message: str) -> bytes:
    """An error."""
    kinds = {401: "authentication_error", 429: "insufficient_quota", 503: "server_error"}
    kind = kinds.get(status, "invalid_request_error")
    return _encoded({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _said(reply: ChatReply) -> Document:
    said: Document = {"content": reply.content, "refusal": reply.refusal or None}
    return said | ({"reasoning_content": reply.reasoning} if reply.reasoning else {})


def _head(kind: str, model: str, replies: Sequence[ChatReply]) -> Document:
    text = json.dumps([model, *(reply.document() for reply in replies)], sort_keys=True)
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return {"id": f"chatcmpl-{digest[:24]}", "object": kind, "created": 0, "model": model}


def _usage(replies: Sequence[ChatReply]) -> Document:
    prompt, completion, reasoning, cached = (
        sum(getattr(reply.usage, name) for reply in replies) for name in ("prompt", "completion", "reasoning", "cached")
    )
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def _encoded(document: Document) -> bytes:
    return json.dumps(document).encode()


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
