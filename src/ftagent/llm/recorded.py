"""A model that says again what was said in a recorded run: no key, no network, and the first difference is an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import Any

from ftagent.core.calls import Document
from ftagent.core.recorded import Different
from ftagent.core.types import CallPlace
from ftagent.llm.types import Backend, CallFailed, ChatReply, ChatRequest, ModelChoice, Price, Usage

_SHOWN = 160


@dataclass(frozen=True)
class ModelFacts:
    """What a backend knew of a model when the run was recorded; prompts and costs depend on it."""

    price: Price | None
    context_tokens: int
    reply_tokens: int
    follows_schema: bool


def facts_of(backend: Backend, models: Iterable[str]) -> dict[str, Any]:
    """The facts of each model as plain JSON, for run.json."""
    return {
        model: asdict(
            ModelFacts(
                backend.price(model),
                backend.context_tokens(model),
                backend.reply_tokens(model),
                backend.follows_schema(model),
            )
        )
        for model in dict.fromkeys(models)
    }


@dataclass
class RecordedBackend:
    """Replies from transcripts. `counting` counts tokens as the recorded run did; it is asked for nothing else."""

    transcripts: Mapping[CallPlace, Sequence[Document]]
    facts: Mapping[str, ModelFacts]
    counting: Backend
    _agent_calls: dict[CallPlace, int] = field(default_factory=dict)
    _script_calls: dict[tuple[CallPlace, str], int] = field(default_factory=dict)

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The recorded reply to `request`. Raises Different where another one was made, or none."""
        if request.role == "script":
            return self._script(request)
        known = [document for document in self.transcripts.get(request.place, ()) if document["role"] != "script"]
        number = self._agent_calls.get(request.place, 0)
        self._agent_calls[request.place] = number + 1
        where = f"{describe(request.place)}, call {number} ({request.role})"
        if number >= len(known):
            raise Different(where, "a call that was not made", "", _short(request.messages[-1].content))
        compare(where, known[number], request)
        return ChatReply.from_document(known[number]["reply"])

    async def embed(self, choice: ModelChoice, texts: Sequence[str]) -> tuple[list[list[float]], Usage]:
        raise CallFailed("a recorded run keeps no embeddings", "refused")

    def price(self, model: str) -> Price | None:
        return self._facts(model).price

    def context_tokens(self, model: str) -> int:
        return self._facts(model).context_tokens

    def reply_tokens(self, model: str) -> int:
        return self._facts(model).reply_tokens

    def follows_schema(self, model: str) -> bool:
        return self._facts(model).follows_schema

    def count_tokens(self, model: str, text: str) -> int:
        return self.counting.count_tokens(model, text)

    async def close(self) -> None:
        await self.counting.close()

    def _script(self, request: ChatRequest) -> ChatReply:
        """Scripts ask in no fixed order: the same request gets the same reply, each one once."""
        document = request.document()
        same = [
            d for d in self.transcripts.get(request.place, ()) if d["role"] == "script" and d["request"] == document
        ]
        key = (request.place, request.digest())
        number = self._script_calls.get(key, 0)
        if number >= len(same):
            where = f"{describe(request.place)}, a script's call"
            raise Different(where, "a request that was not made", "", _short(request.messages[-1].content))
        self._script_calls[key] = number + 1
        return ChatReply.from_document(same[number]["reply"])

    def _facts(self, model: str) -> ModelFacts:
        if model not in self.facts:
            raise Different("run.json", "the model asked", ", ".join(self.facts), model)
        return self.facts[model]


def compare(where: str, recorded: Document, request: ChatRequest) -> None:
    """Raises Different at the first line of the first message that differs, else at the first parameter."""
    if recorded["role"] != request.role:
        raise Different(where, "who asks", recorded["role"], request.role)
    old, new = recorded["request"], request.document()
    for number, (was, now) in enumerate(zip_longest(old["messages"], new["messages"])):
        if was is None or now is None:
            counts = f"{len(old['messages'])} messages", f"{len(new['messages'])} messages"
            raise Different(where, "the conversation", *counts)
        if was["role"] != now["role"]:
            raise Different(where, f"role of message {number}", was["role"], now["role"])
        _compare_text(f"{where}, message {number} ({now['role']})", was["content"], now["content"])
    for name in ("parameters", "schema"):
        if old.get(name) != new.get(name):
            raise Different(where, name, _short(repr(old.get(name))), _short(repr(new.get(name))))


def describe(place: CallPlace) -> str:
    """`loop 2, code, attempt 1`."""
    loop = "before the first loop" if place.loop is None else f"loop {place.loop}"
    return f"{loop}, {place.step}" + (f", attempt {place.attempt}" if place.attempt else "")


def _compare_text(where: str, recorded: str, replayed: str) -> None:
    if recorded == replayed:
        return
    for number, (was, now) in enumerate(zip_longest(recorded.split("\n"), replayed.split("\n")), start=1):
        if was != now:
            raise Different(where, f"line {number}", _short(was or ""), _short(now or ""))


def _short(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
