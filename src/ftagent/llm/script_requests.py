"""What a script asked for, from the JSON of OpenAI's protocol. Nothing that it sends reaches a model unchecked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ftagent.llm.types import Message, ModelChoice

MAX_SAMPLES = 32
MAX_TEXTS = 2048
"""In one request for embeddings, as OpenAI has it."""
MAX_DEPTH = 50
"""Of a schema."""
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_SHAPES = ("model", "messages", "n", "stream", "stream_options", "response_format", "max_completion_tokens")


class Refusal(Exception):
    """An answer that is an error. `code` is a word for programs, the text is for the author of the script."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class ScriptCall:
    """A request for a chat completion."""

    model: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any]
    """Fields of `ModelChoice` that the script set."""
    extra: Mapping[str, Any]
    """Further parameters of the provider that the script set."""
    schema: Mapping[str, Any] | None
    samples: int
    stream: bool
    stream_usage: bool
    ignored: tuple[str, ...]
    """Parameters that mean nothing here."""

    def choice(self, member: ModelChoice) -> ModelChoice:
        """`member` with what the script set."""
        return replace(member, **self.parameters, extra={**member.extra, **self.extra})

    def key(self) -> str:
        """Equal for equal requests, streamed or not, for any number of samples."""
        said = [self.model, [vars(message) for message in self.messages], dict(self.parameters), dict(self.extra)]
        return json.dumps([*said, self.schema and dict(self.schema)], sort_keys=True)


def json_object(text: bytes) -> dict[str, Any]:
    """The body of a request. Raises Refusal (status 400)."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "invalid_request", "the body is no JSON") from error
    if not isinstance(body, dict):
        raise Refusal(400, "invalid_request", "the body must be a JSON object")
    return body


def parse_chat(body: Mapping[str, Any], names: Collection[str]) -> ScriptCall:
    """Raises Refusal (status 400 or 404) with what would be right; `names` are the models that there are."""
    given = {name: value for name, value in body.items() if value is not None}
    model = _model(given, names)
    extra: dict[str, Any] = {name: _checked(name, given[name]) for name in ("top_p", "seed", "stop") if name in given}
    fields = ("temperature", "frequency_penalty", "presence_penalty", "reasoning_effort", "max_tokens")
    parameters = {name: _checked(name, given[name]) for name in fields if name in given}
    if "max_completion_tokens" in given:
        parameters["max_tokens"] = _checked("max_completion_tokens", given["max_completion_tokens"])
    schema, form = _response_format(given.get("response_format", {"type": "text"}))
    options = given.get("stream_options", {})
    return ScriptCall(
        model=model,
        messages=_messages(given.get("messages")),
        parameters=parameters,
        extra={**extra, **form},
        schema=schema,
        samples=_checked("n", given.get("n", 1)),
        stream=_checked("stream", given.get("stream", False)),
        stream_usage=isinstance(options, dict) and options.get("include_usage") is True,
        ignored=_names(given.keys() - {*_SHAPES, *_RULES}),
    )


def parse_embedding(body: Mapping[str, Any], names: Collection[str]) -> tuple[list[str], bool, tuple[str, ...]]:
    """Texts, whether vectors are wanted as base64, and parameters that mean nothing here. Raises Refusal."""
    given = {name: value for name, value in body.items() if value is not None}
    _model(given, names)
    texts = given.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise _wrong("input", "a text or a list of texts, none of them empty")
    if len(texts) > MAX_TEXTS:
        raise _wrong("input", f"at most {MAX_TEXTS} texts")
    form = given.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise _wrong("encoding_format", '"float" or "base64"')
    return texts, form == "base64", _names(given.keys() - {"model", "input", "encoding_format"})


def _names(given: Collection[str]) -> tuple[str, ...]:
    """Parameters that mean nothing here, as they may stand in a header and on a terminal."""
    return tuple(sorted(re.sub(r"\W", "?", name, flags=re.ASCII)[:40] for name in given))[:20]


def _model(given: Mapping[str, Any], names: Collection[str]) -> str:
    model = given.get("model")
    if isinstance(model, str) and model in names:
        return model
    raise Refusal(404, "model_not_found", f"model {str(model)[:100]!r} is not offered here; use {', '.join(names)}")


def _messages(given: Any) -> tuple[Message, ...]:
    if not isinstance(given, list) or not given:
        raise _wrong("messages", 'a list like [{"role": "user", "content": "…"}]')
    return tuple(_message(number, message) for number, message in enumerate(given))


def _message(number: int, message: Any) -> Message:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise _wrong(f"messages[{number}].role", f"one of {', '.join(_ROLES)}")
    content = message.get("content")
    if isinstance(content, list):
        parts: list[Any] = [part.get("text") if isinstance(part, dict) else None for part in content]
        content = "".join(parts) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(content, str):
        raise _wrong(f"messages[{number}].content", "a text, or a list of parts of type text")
    # A lone surrogate, which JSON may hold, is nothing that can be sent.
    return Message(_ROLES[message["role"]], content.encode("utf-8", "replace").decode())  # type: ignore[arg-type]


def _response_format(given: Any) -> tuple[Mapping[str, Any] | None, dict[str, Any]]:
    """The schema, and what is passed on as it is."""
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "text":
        return None, {}
    if kind == "json_object":
        return None, {"response_format": {"type": "json_object"}}
    schema = given.get("json_schema") if kind == "json_schema" else None
    if isinstance(schema, dict) and isinstance(schema.get("schema"), dict) and _flat(schema, MAX_DEPTH):
        return schema["schema"], {}
    raise _wrong("response_format", 'of type "text", "json_object", or "json_schema" with a schema, not too deep')


def _flat(value: Any, depth: int) -> bool:
    """Whether nothing in `value` is nested deeper."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(depth > 0 and _flat(item, depth - 1) for item in below)


def _wrong(name: str, right: str) -> Refusal:
    return Refusal(400, "invalid_request", f"`{name}` must be {right}")


def _number(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
    def fits(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    return fits, f"a number from {low:g} to {high:g}"


def _integer(low: int, high: int) -> tuple[Callable[[Any], bool], str]:
    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return fits, f"a whole number from {low} to {high}"


def _is_stop(value: Any) -> bool:
    texts = [value] if isinstance(value, str) else value
    return isinstance(texts, list) and 0 < len(texts) <= 4 and all(isinstance(text, str) for text in texts)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "reasoning_effort": (lambda value: isinstance(value, str) and 0 < len(value) <= 20, "a short word such as low"),
    "max_tokens": _integer(1, 10**7),
    "max_completion_tokens": _integer(1, 10**7),
    "seed": _integer(-(2**63), 2**63 - 1),
    "stop": (_is_stop, "a text or a list of at most 4 texts"),
    "n": _integer(1, MAX_SAMPLES),
    "stream": (lambda value: isinstance(value, bool), "true or false"),
}


def _checked(name: str, value: Any) -> Any:
    fits, right = _RULES[name]
    if not fits(value):
        raise _wrong(name, right)
    return value
