"""What an error below LiteLLM means. The exceptions here are those of the real libraries, chained as LiteLLM does."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from ftagent.llm.failures import Asked, ParameterRefused, clean, failure_of, refused_parameter, retry_after
from ftagent.llm.types import FailureKind

ASKED = Asked("gpt-test", "http://127.0.0.1:1/v1", "OPENAI_API_KEY", ("sk-canary",))


class Mapped(Exception):
    """As LiteLLM's own exceptions: a name chosen by words in the text, a made-up response."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status
        self.response = httpx.Response(status, request=httpx.Request("POST", "https://made.up"))


class BadRequestError(Mapped): ...


class AnthropicError(Exception):
    """As providers with their own client raise it: headers beside the status, the body in the text."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        self.status_code, self.message, self.headers = status, json.dumps(body), headers
        super().__init__(self.message)


def answered(
    status: int, message: str, code: str = "", param: str | None = None, headers: dict[str, str] | None = None
) -> BadRequestError:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    response = httpx.Response(
        status, json=body, headers=headers, request=httpx.Request("POST", "http://127.0.0.1:1/v1/chat/completions")
    )
    try:
        try:
            response.raise_for_status()
        except httpx.HTTPStatusError as error:
            error.body = body  # type: ignore[attr-defined]
            raise
    except httpx.HTTPStatusError as error:
        mapped = BadRequestError(f"litellm.BadRequestError: OpenAIException - {message}", status)
        mapped.__context__ = error
        return mapped
    raise AssertionError("the status is no error")


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (400, "", "The request is not valid.", "refused"),
        (400, "context_length_exceeded", "Your messages are too many.", "too_long"),
        (400, "", "the request exceeds the available context size, try increasing it", "too_long"),
        (400, "model_not_found", "No such thing.", "unknown_model"),
        (400, "", "API key not valid. Please pass a valid API key.", "authentication"),
        (401, "invalid_api_key", "Incorrect API key provided.", "authentication"),
        (402, "", "Insufficient balance", "authentication"),
        (403, "", "You are not allowed to sample from this model.", "authentication"),
        (404, "model_not_found", "The model does not exist.", "unknown_model"),
        (408, "", "Request timeout", "time_out"),
        (409, "", "Conflict, try again", "server"),
        (413, "", "Request too large for this model.", "too_long"),
        (429, "rate_limit_exceeded", "Rate limit reached.", "rate_limit"),
        (429, "insufficient_quota", "You exceeded your current quota.", "authentication"),
        (429, "tokens", "Request too large for gpt-4o on tokens per min.", "too_long"),
        (500, "server_error", "The server had an error.", "server"),
        (503, "", "Rate limit? No: overloaded. Maximum context length is none of its business.", "server"),
        (529, "", "Overloaded", "server"),
    ],
)
def test_the_status_that_the_server_sent_decides(status: int, code: str, message: str, kind: FailureKind) -> None:
    failure = failure_of(answered(status, message, code), ASKED)
    assert failure.kind == kind
    assert f"({status})" in str(failure)
    assert message in str(failure)


def test_other_providers_headers_and_body_are_read_too() -> None:
    error = AnthropicError(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
                           {"retry-after": "7"})  # fmt: skip
    failure = failure_of(error, ASKED)
    assert (failure.kind, failure.retry_after) == ("server", 7.0)
    assert str(failure) == "gpt-test at http://127.0.0.1:1/v1: the server failed: Overloaded (529)"


def test_retry_after_comes_from_the_real_response() -> None:
    assert failure_of(answered(429, "Slow down.", headers={"Retry-After": "3"}), ASKED).retry_after == 3.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"Retry-After-Ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({}, None),
    ],
)
def test_retry_after_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert retry_after({"Retry-After": date}) == pytest.approx(90, abs=2)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (httpx.ConnectError("All connection attempts failed"), "server", "cannot connect (connection refused)"),
        (httpx.ConnectError("Name or service not known"), "server", "cannot connect (Name or service not known)"),
        (httpx.ReadTimeout("too slow"), "time_out", "time limit"),
        (httpx.RemoteProtocolError("peer closed connection"), "cut", "closed before the reply was complete"),
        (ConnectionResetError(), "cut", "closed before the reply was complete"),
        (json.JSONDecodeError("Expecting value", "", 0), "server", "no JSON"),
        (ModuleNotFoundError("No module named 'boto3'", name="boto3"), "unknown_model", "pip install boto3"),
    ],
)
def test_failures_without_an_answer(error: Exception, kind: FailureKind, words: str) -> None:
    # LiteLLM gives every one of them the status 500.
    mapped = Mapped(f"litellm.InternalServerError: OpenAIException - {error}", 500)
    mapped.__cause__ = error
    failure = failure_of(mapped, ASKED)
    assert failure.kind == kind
    assert words in str(failure)


@pytest.mark.parametrize(
    ("text", "named", "parameter"),
    [
        ("Unsupported parameter: 'temperature' is not supported with this model.", "temperature", "temperature"),
        ("`temperature` is deprecated for this model.", "", "temperature"),
        ("reasoning_effort: Extra inputs are not permitted", "", "reasoning_effort"),
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "", "max_tokens"),
        ("Invalid schema for response_format 'reply'", "response_format.json_schema", "response_format"),
        ("Your temperature is fine, but messages is empty", "", None),
        ("Unsupported value: messages[0].role", "messages", None),
        ("not supported: mytemperature", "", None),
    ],
)
def test_which_parameter_is_refused(text: str, named: str, parameter: str | None) -> None:
    sent = {"temperature", "reasoning_effort", "max_tokens", "response_format", "stream"}
    assert refused_parameter(text, named, sent) == parameter


def test_a_refused_parameter_is_named() -> None:
    failure = failure_of(answered(400, "'top_k' is not supported", param="top_k"), ASKED, {"top_k"})
    assert isinstance(failure, ParameterRefused)
    assert (failure.kind, failure.parameter) == ("parameter", "top_k")


def test_messages_are_one_short_line_without_secrets() -> None:
    failure = failure_of(answered(401, "Incorrect API key provided:\n\n sk-canary." + " x" * 2000), ASKED)
    assert "\n" not in str(failure)
    assert "sk-canary" not in str(failure)
    assert len(str(failure)) < 500
    assert clean("litellm.RateLimitError: RateLimitError: OpenAIException - Slow down.", ASKED) == "Slow down."
