"""A model that says what a file tells it to: `CHAT_MODEL=scripted/FILE`, for tests, demos and plug-in authors.

docs/scripted-model.md describes the file. Which reply is given depends on the request alone, never on what was
asked before, so a run that was killed and resumed hears what an uninterrupted one hears.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ftagent.core.errors import RequestError
from ftagent.core.types import CallPlace
from ftagent.llm.types import CallFailed, ChatReply, ChatRequest, FailureKind, ModelChoice, Price, Role, Usage

PREFIX = "scripted/"
_DIMENSIONS = 64
_CHARACTERS_PER_TOKEN = 4


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Prices(_Part):
    """Dollars per million tokens."""

    input: NonNegativeFloat
    output: NonNegativeFloat
    cached: NonNegativeFloat | None = None


class _Usage(_Part):
    prompt: NonNegativeInt | None = None
    completion: NonNegativeInt | None = None
    reasoning: NonNegativeInt | None = None
    cached: NonNegativeInt = 0

    def counted(self) -> Usage:
        return Usage(self.prompt or 0, self.completion or 0, self.reasoning or 0, self.cached)


class _Failure(_Part):
    kind: FailureKind
    times: PositiveInt | None = None
    retry_after: NonNegativeFloat | None = None
    usage: _Usage = _Usage()


class _Entry(_Part):
    role: Role
    loop: NonNegativeInt | None = None
    attempt: NonNegativeInt | None = None
    turn: NonNegativeInt | None = None
    contains: str | None = None
    text: str | None = None
    file: str | None = None
    reasoning: str = ""
    refusal: str = ""
    finish_reason: str = "stop"
    usage: _Usage = _Usage()
    fail: _Failure | None = None
    seconds: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _says_something(self) -> _Entry:
        if self.text is not None and self.file is not None:
            raise ValueError("either text or file, not both")
        says = self.text is not None or self.file is not None or bool(self.refusal)
        if not says and (self.fail is None or self.fail.times is not None):
            raise ValueError("text, file, refusal or a fail without times is missing")
        return self

    def matches(self, request: ChatRequest) -> bool:
        place, last = request.place, request.messages[-1].content if request.messages else ""
        asked = (request.role, place.loop, place.attempt, _turn(request))
        wanted = (self.role, self.loop, self.attempt, self.turn)
        if any(want is not None and want != is_ for want, is_ in zip(wanted, asked, strict=True)):
            return False
        return self.contains is None or self.contains in last


class _Script(_Part):
    replies: tuple[_Entry, ...] = ()
    prices: _Prices | None = None
    context_tokens: PositiveInt = 128_000
    reply_tokens: PositiveInt = 4096
    follows_schema: bool = False


class ScriptedBackend:
    """The Backend of one file; it answers for every model name. Raises RequestError for a file that does not read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._script, self._texts = _read(path)
        self._failed: Counter[tuple[int, CallPlace, str]] = Counter()

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply of the first entry that matches; refused where none does."""
        try:
            async with asyncio.timeout(request.choice.time_limit):
                return await self._complete(request)
        except TimeoutError:
            raise CallFailed(f"no reply within {request.choice.time_limit:g} s", "time_out") from None

    async def _complete(self, request: ChatRequest) -> ChatReply:
        number, entry = self._find(request)
        await asyncio.sleep(entry.seconds)
        self._fail(number, entry, request)
        return self._reply(self._texts[number], entry, request)

    def _find(self, request: ChatRequest) -> tuple[int, _Entry]:
        for number, entry in enumerate(self._script.replies):
            if entry.matches(request):
                return number, entry
        place = request.place
        raise CallFailed(
            f"{self._path}: no reply for role {request.role}, loop {place.loop}, attempt {place.attempt}, "
            f"turn {_turn(request)}",
            "refused",
        )

    def _fail(self, number: int, entry: _Entry, request: ChatRequest) -> None:
        """Raise CallFailed as often as the entry says for one request at one place."""
        if entry.fail is None:
            return
        asked = (number, request.place, request.digest())
        if entry.fail.times is None or self._failed[asked] < entry.fail.times:
            self._failed[asked] += 1
            why = f"{self._path}: reply {number + 1} fails as written ({entry.fail.kind})"
            raise CallFailed(why, entry.fail.kind, entry.fail.retry_after, entry.fail.usage.counted())

    def _reply(self, text: str, entry: _Entry, request: ChatRequest) -> ChatReply:
        given = entry.usage
        reasoning = estimated_tokens(entry.reasoning) if given.reasoning is None else given.reasoning
        completion = estimated_tokens(text) + reasoning if given.completion is None else given.completion
        prompt = sum(estimated_tokens(m.content) for m in request.messages) if given.prompt is None else given.prompt
        usage = Usage(prompt, completion, reasoning, given.cached)
        return ChatReply(text, entry.reasoning, entry.finish_reason, entry.refusal, usage)

    async def embed(self, choice: ModelChoice, texts: Sequence[str]) -> tuple[list[list[float]], Usage]:
        """Unit vectors that are alike where texts share words."""
        return [_vector(text) for text in texts], Usage(prompt=sum(map(estimated_tokens, texts)))

    def price(self, model: str) -> Price | None:
        prices = self._script.prices
        if prices is None:
            return None
        return Price(prices.input / 1e6, prices.output / 1e6, None if prices.cached is None else prices.cached / 1e6)

    def context_tokens(self, model: str) -> int:
        return self._script.context_tokens

    def reply_tokens(self, model: str) -> int:
        return self._script.reply_tokens

    def count_tokens(self, model: str, text: str) -> int:
        return estimated_tokens(text)

    def follows_schema(self, model: str) -> bool:
        return self._script.follows_schema

    async def close(self) -> None:
        """There is nothing to let go of."""


def _turn(request: ChatRequest) -> int:
    """How often the model has spoken in this conversation."""
    return sum(message.role == "assistant" for message in request.messages)


def estimated_tokens(text: str) -> int:
    """A quarter of the characters."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def _vector(text: str) -> list[float]:
    vector = [0.0] * _DIMENSIONS
    for word in re.findall(r"\w+", text.lower()) or [""]:
        digest = hashlib.sha256(word.encode("utf-8", "replace")).digest()
        vector[digest[0] % _DIMENSIONS] += 1.0 if digest[1] % 2 else -1.0
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector] if length else [1.0] + [0.0] * (_DIMENSIONS - 1)


def _read(path: Path) -> tuple[_Script, list[str]]:
    """The script and the text of each of its replies. Raises RequestError naming the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{path}: this script of a model cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 text (byte {error.start})") from error
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        document = loader.construct_document(node) if node else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        why = getattr(error, "problem", None) or " ".join(str(error).split())
        raise RequestError(f"{path}:{line}: not YAML ({why})") from error
    if not isinstance(document, dict):
        raise RequestError(f"{path}:1: a script is a mapping with the key replies")
    try:
        script = _Script.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(str(part) for part in first["loc"])
        why = str(first["msg"]).removeprefix("Value error, ")
        raise RequestError(f"{path}:{_line(node, first['loc'])}: {what}: {why[:1].lower()}{why[1:]}") from error
    return script, [_text(path, node, number, entry) for number, entry in enumerate(script.replies)]


def _text(path: Path, node: Any, number: int, entry: _Entry) -> str:
    if entry.file is None:
        return entry.text or ""
    try:
        return (path.parent / entry.file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        line = _line(node, ("replies", number, "file"))
        raise RequestError(
            f"{path}:{line}: {entry.file} cannot be read ({why}); it is looked for beside the script"
        ) from error


def _line(node: Any, location: Sequence[int | str]) -> int:
    """The line, from 1, of the deepest part of `location` that the file has."""
    line = int(node.start_mark.line) + 1
    for part in location:
        inner = None
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            inner = node.value[part]
            line = inner.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    inner, line = value, key.start_mark.line + 1
        if inner is None:
            break
        node = inner
    return line
