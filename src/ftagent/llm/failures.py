"""Why a request to a model failed, from whatever LiteLLM, the SDKs and the HTTP clients below it raise.

LiteLLM chooses its exception by words in the text: a 500 whose body says `invalid_request_error` becomes a
BadRequestError. What the server really answered is further down the chain of exceptions, and decides here.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ftagent.llm.types import CallFailed, FailureKind

LONGEST_TEXT = 300
"""Characters of a provider's message that are passed on."""
TOO_LONG = re.compile(
    r"context_length_exceeded|maximum context length|context (size|window|limit)|prompt is too long"
    r"|request too large|too many tokens|input tokens? exceed|maximum number of tokens|string_above_max_length",
    re.IGNORECASE,
)
NO_CREDIT = re.compile(r"insufficient_quota|current quota|credit balance|billing|insufficient (funds|balance)", re.I)
BAD_KEY = re.compile(
    r"(invalid|incorrect|not valid|unauthorized|missing).{0,20}api.?key|api.?key.{0,20}(not valid|invalid)",
    re.IGNORECASE,
)
NOT_SUPPORTED = re.compile(
    r"support|unknown|unrecognized|unexpected|not permitted|not allowed|not available|extra inputs|deprecated|invalid",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Asked:
    """What a request was sent to, for messages. `secrets` never appear in them."""

    model: str
    address: str = ""
    key_name: str = "OPENAI_API_KEY"
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return f"{self.model} at {self.address}" if self.address else self.model


class ParameterRefused(CallFailed):
    """The model does not take `parameter`."""

    def __init__(self, message: str, parameter: str) -> None:
        super().__init__(message, "parameter")
        self.parameter = parameter


class AnswerTooLarge(Exception):
    """An answer was not read to its end because of its size."""


def failure_of(error: BaseException, asked: Asked, sent: Collection[str] = ()) -> CallFailed:
    """What `error` means. `sent` names the parameters that can be left out of the request."""
    chain = tuple(causes(error))
    if answer := _answer(chain):
        return _by_status(answer, asked, sent)
    kind, text = _by_connection(chain)
    if kind is None:
        kind, text = _by_name(chain, asked)
    return CallFailed(f"{asked}: {clean(text, asked)}", kind)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what it came from, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def clean(text: str, asked: Asked) -> str:
    """One line of bounded length without secrets and without LiteLLM's prefixes."""
    text = re.sub(r"^(litellm\.\w+: |\w+(Error|Exception)( -|:) )+", "", " ".join(text.split()))
    text = re.sub(r" For more information check: https?://\S+", "", text)
    for secret in asked.secrets:
        text = text.replace(secret, "[redacted]")
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, from both forms of Retry-After; None without a readable one."""
    lower = {name.lower(): value for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(lower.get(name, "")) * unit
        except ValueError:
            continue
        # `seconds >= 0` is false for nan too.
        return seconds if 0 <= seconds < float("inf") else None
    try:
        moment = parsedate_to_datetime(lower.get("retry-after", ""))
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


@dataclass(frozen=True)
class _Answer:
    """A response that is an error."""

    status: int
    headers: Mapping[str, str]
    text: str
    code: str
    parameter: str


def _answer(chain: tuple[BaseException, ...]) -> _Answer | None:
    """The response below `chain`; LiteLLM's own exceptions carry made-up ones, without headers."""
    for error in reversed(chain):
        response = getattr(error, "response", None)
        headers = getattr(response, "headers", None) or getattr(error, "headers", None)
        status = getattr(response, "status_code", None) or getattr(error, "status_code", None)
        if headers and isinstance(status, int) and status >= 400:
            body = _body(chain)
            text = str(body.get("message") or getattr(error, "message", "") or error)
            return _Answer(
                status, headers, text, f"{body.get('code')} {body.get('type')}", str(body.get("param") or "")
            )
    return None


def _body(chain: tuple[BaseException, ...]) -> Mapping[str, Any]:
    """The error object of the body, as OpenAI, vLLM and Anthropic write it; {} where there is none."""
    for error in reversed(chain):
        body = getattr(error, "body", None)
        if body is None and (text := getattr(error, "message", None)):
            try:
                body = json.loads(text)
            except (ValueError, TypeError):
                continue
        if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
            body = body["error"]
        if isinstance(body, Mapping) and body.get("message"):
            return body
    return {}


def _by_status(answer: _Answer, asked: Asked, sent: Collection[str]) -> CallFailed:
    said = f"{clean(answer.text, asked)} ({answer.status})"
    wait = retry_after(answer.headers)
    found = f"{answer.code} {answer.text}"
    if answer.status < 500:
        if NO_CREDIT.search(found) and answer.status in (402, 403, 429):
            return CallFailed(f"{asked}: the account has no credit or quota left: {said}", "authentication")
        if answer.status in (400, 413, 422, 429) and TOO_LONG.search(found):
            return CallFailed(f"{asked}: the prompt is too long: {said}", "too_long")
        if answer.status in (401, 402, 403) or (answer.status == 400 and BAD_KEY.search(answer.text)):
            return CallFailed(f"{asked}: the key in {asked.key_name} was refused: {said}", "authentication")
        if answer.status == 404 or "model_not_found" in answer.code:
            return CallFailed(f"{asked}: no such model or address: {said}", "unknown_model")
        if answer.status == 429:
            return CallFailed(f"{asked}: too many requests: {said}", "rate_limit", wait)
        if answer.status == 408:
            return CallFailed(f"{asked}: {said}", "time_out", wait)
        if answer.status not in (409, 425):
            if answer.status in (400, 422) and (parameter := refused_parameter(answer.text, answer.parameter, sent)):
                return ParameterRefused(f"{asked} does not take {parameter}: {said}", parameter)
            return CallFailed(f"{asked}: refused: {said}", "refused")
    return CallFailed(f"{asked}: the server failed: {said}", "server", wait)


def refused_parameter(text: str, named: str, sent: Collection[str]) -> str | None:
    """Which of the parameters `sent` a refusal is about; None when it is about something else."""
    if not NOT_SUPPORTED.search(text):
        return None
    if named.split(".")[0] in sent:
        return named.split(".")[0]
    found = [name for name in sent if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
    return min(found, key=text.index, default=None)


def _by_connection(chain: tuple[BaseException, ...]) -> tuple[FailureKind | None, str]:
    import httpx

    for error in reversed(chain):
        if isinstance(error, AnswerTooLarge):
            return "refused", str(error)
        if isinstance(error, ConnectionRefusedError | socket.gaierror | httpx.ConnectError | httpx.ConnectTimeout):
            refused = any(isinstance(cause, ConnectionRefusedError) for cause in chain)
            why = "connection refused" if refused or "attempts failed" in str(error) else str(error) or "no answer"
            return "server", f"cannot connect ({why}); is OPENAI_API_BASE right and the server running?"
    for error in reversed(chain):
        if isinstance(error, TimeoutError | httpx.TimeoutException) or type(error).__name__ in _TIME_OUTS:
            return "time_out", "no answer within the time limit"
        if isinstance(error, httpx.TransportError | ConnectionError) or type(error).__name__ in _CLOSED:
            return "cut", "the connection was closed before the reply was complete"
    return None, ""


_TIME_OUTS = frozenset({"APITimeoutError", "Timeout", "ServerTimeoutError"})
_CLOSED = frozenset({"ServerDisconnectedError", "ClientPayloadError", "ClientOSError"})
_KINDS: Mapping[str, FailureKind] = {
    "AuthenticationError": "authentication",
    "PermissionDeniedError": "authentication",
    "NotFoundError": "unknown_model",
    "ContextWindowExceededError": "too_long",
    "RateLimitError": "rate_limit",
    "BadRequestError": "refused",
    "UnsupportedParamsError": "refused",
    "ContentPolicyViolationError": "refused",
    "UnprocessableEntityError": "refused",
}


def _by_name(chain: tuple[BaseException, ...], asked: Asked) -> tuple[FailureKind, str]:
    """No response and no broken connection: LiteLLM refused by itself, or could not read what came."""
    body = _body(chain)
    if body:
        found = f"{body.get('code')} {body.get('type')} {body.get('message')}"
        kind: FailureKind = "too_long" if TOO_LONG.search(found) else "server"
        return kind, str(body["message"])
    if any(isinstance(error, json.JSONDecodeError) for error in chain):
        return "server", "the answer is no JSON"
    for error in chain:
        if isinstance(error, ImportError):
            return "unknown_model", f"LiteLLM needs a package for this model; run `pip install {error.name}`"
    text = str(getattr(chain[0], "message", None) or chain[0])
    if "LLM Provider NOT provided" in text:
        return "unknown_model", unknown_provider(asked.model)
    kind = next((_KINDS[type(error).__name__] for error in chain if type(error).__name__ in _KINDS), "server")
    if kind == "authentication":
        return kind, f"no key; set {asked.key_name}"
    if kind == "server" and ("choices" in text or "Invalid response object" in text):
        return kind, "the answer is no chat completion"
    return kind, text


def unknown_provider(model: str) -> str:
    """What to do about a name that nobody is known to serve."""
    return f"no provider is known for it; name one (PROVIDER/{model}), or set OPENAI_API_BASE for a server of your own"
