"""The one way to ask a language model: redacted, recorded, cached, under the cap, retried, metered."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from loguru import logger

from ftagent.core import events
from ftagent.core.calls import Calls
from ftagent.core.errors import RequestError
from ftagent.core.types import CallPlace
from ftagent.llm.cache import ReplyCache
from ftagent.llm.ledger import Account, Ledger
from ftagent.llm.problems import explained
from ftagent.llm.redaction import Redactor
from ftagent.llm.retry import RetryPolicy, with_retries
from ftagent.llm.thinking import without_thinking
from ftagent.llm.types import Backend, CallFailed, ChatReply, ChatRequest, Message, ModelChoice, Price, Role, Usage

_T = TypeVar("_T")
_TOKENS_PER_TEXT = 16
_SAFETY = 1.2
_EMBEDDED_AT_ONCE = 100


@dataclass(frozen=True)
class ClientOptions:
    """How a client asks. `policies` holds what differs from `policy` by role."""

    policy: RetryPolicy
    policies: Mapping[Role, RetryPolicy]
    prices: Mapping[str, Price]
    """Set by the user; they win over what the backend knows."""
    embedding: ModelChoice | None = None
    pools: tuple[str, ...] = ()
    """Further models that scripts may ask for."""
    log_content: bool = False
    """Write prompts and replies to the log, at level DEBUG."""


class ChatClient:
    """For one run and one event loop; many calls may be in flight at once.

    `chat` and `embed` raise AgentUnavailable when the model cannot be used, NoUsableReply when it will not answer
    this request, LimitReached when `--budget-usd` is spent, StorageFull when a call cannot be recorded.
    """

    def __init__(
        self,
        backend: Backend,
        models: Mapping[Role, ModelChoice],
        calls: Calls,
        options: ClientOptions,
        *,
        note: Callable[[str], None],
        redactor: Redactor,
        replies: ReplyCache,
        vectors: ReplyCache,
    ) -> None:
        self.backend = backend
        self._choices = models
        self._calls = calls
        self._options = options
        self._note = note
        self.redactor = redactor
        self._replies = replies
        self._vectors = vectors
        self.ledger = Ledger(calls, self.price)

    @property
    def embeds(self) -> bool:
        """Whether there is a model for embeddings."""
        return self._options.embedding is not None

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that may be asked, by name."""
        embedding = [self._options.embedding.model] if self._options.embedding else []
        names = [*(choice.model for choice in self._choices.values()), *self._options.pools, *embedding]
        return tuple(dict.fromkeys(names))

    def model(self, role: Role) -> ModelChoice:
        """The model that answers for a role."""
        return self._choices[role]

    def price(self, model: str) -> Price | None:
        """None where neither the user nor the backend knows it."""
        return self._options.prices.get(model) or self.backend.price(model)

    def context_tokens(self, role: Role) -> int:
        """Largest prompt of a role's model."""
        return self.backend.context_tokens(self.model(role).model)

    def reply_tokens(self, role: Role) -> int:
        """Largest reply of a role's model."""
        choice = self.model(role)
        return choice.max_tokens or self.backend.reply_tokens(choice.model)

    def count_tokens(self, role: Role, text: str) -> int:
        """Tokens of a text for a role's model, or a good estimate."""
        return self.backend.count_tokens(self.model(role).model, text)

    def follows_schema(self, role: Role) -> bool:
        """Whether the replies of a role's model can be held to a JSON schema."""
        return self.backend.follows_schema(self.model(role).model)

    async def chat(
        self,
        role: Role,
        place: CallPlace,
        messages: Sequence[Message],
        schema: Mapping[str, Any] | None = None,
        choice: ModelChoice | None = None,
        retries: int | None = None,
    ) -> ChatReply:
        """The reply to a conversation. `choice` asks another model than the role's, `retries` as often as it says."""
        choice = choice or self.model(role)
        request, kept, digest = self._request(role, place, messages, schema, choice)
        if recorded := self._calls.find(place, digest):
            return ChatReply.from_document(recorded["reply"])
        if cached := self._replies.reply(digest):
            self._keep(kept, digest, cached, _Cost(0.0, Usage(), 0.0, 0))
            return cached
        started = time.monotonic()
        with self.ledger.account(choice.model, lambda: self._worst(request)) as account:
            said, requests = await self._attempts(
                role, choice, account, lambda: self.backend.complete(request), retries
            )
            reply = self.redactor.reply(without_thinking(said) if choice.strip_thinking else said)
            seconds = time.monotonic() - started
            self._keep(kept, digest, reply, _Cost(account.settle(reply.usage), reply.usage, seconds, requests))
        self._replies.keep_reply(digest, reply)
        return reply

    def recorded(
        self, role: Role, place: CallPlace, messages: Sequence[Message], schema: Mapping[str, Any] | None,
        choices: Sequence[ModelChoice],
    ) -> tuple[ModelChoice, ChatReply] | None:  # fmt: skip
        """The next reply that the run has on record from any of `choices`, also from another place; it is free."""
        requests = [self._request(role, place, messages, schema, choice)[2] for choice in choices]
        document = self._calls.find(place, *requests) or self._calls.reuse(place, role, *requests)
        if document is None:
            return None
        model = document["request"]["parameters"]["model"]
        return next(c for c in choices if c.model == model), ChatReply.from_document(document["reply"])

    def start_over(self, role: Role, place: CallPlace) -> None:
        """Whoever asked as `role` at `place` begins anew: what is on record is given out again from the first."""
        self._calls.start_over(place, role)

    def policy(self, role: Role) -> RetryPolicy:
        """How often and how long after a failure a role's calls are tried again."""
        return self._options.policies.get(role, self._options.policy)

    def redact(self, text: str) -> str:
        """`text` without secrets."""
        return self.redactor.redact(text)

    async def embed(
        self, texts: Sequence[str], role: Role = "script", place: CallPlace | None = None
    ) -> list[list[float]]:
        """One vector per text. With `place` the call is recorded; without, its cost counts for this session only.

        Raises RequestError when there is no embedding model.
        """
        choice = self._options.embedding
        if choice is None:
            raise RequestError("EMBEDDING_MODEL is not set, so there is no model for embeddings")
        clean = [self.redactor.clean(text) for text in texts]
        known = dict(zip(clean, self._vectors.vectors(choice.model, clean), strict=True))
        missing = [text for text, vector in known.items() if vector is None]
        for start in range(0, len(missing), _EMBEDDED_AT_ONCE):
            some = missing[start : start + _EMBEDDED_AT_ONCE]
            vectors = await self._embed(choice, some, role, place)
            self._vectors.keep_vectors(choice.model, some, vectors)
            known.update(zip(some, vectors, strict=True))
        return [vector for text in clean if (vector := known[text]) is not None]

    async def close(self) -> None:
        """Let go of connections and files."""
        self._replies.close()
        self._vectors.close()
        await self.backend.close()

    async def _embed(
        self, choice: ModelChoice, texts: list[str], role: Role, place: CallPlace | None
    ) -> list[list[float]]:
        """One call for embeddings."""
        asked = {"parameters": choice.document(), "input": texts}
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        if place and (recorded := self._calls.find(place, digest)):
            return [list(map(float, vector)) for vector in recorded["reply"]["vectors"]]
        started = time.monotonic()
        prompt = self._most(choice.model, texts)
        with self.ledger.account(choice.model, lambda: Usage(prompt=prompt)) as account:
            (vectors, usage), requests = await self._attempts(
                role, choice, account, lambda: self.backend.embed(choice, texts)
            )
            if place is None:
                account.spend(usage)
            else:
                cost = _Cost(account.settle(usage), usage, time.monotonic() - started, requests)
                self._record(role, place, choice.model, digest, asked, {"vectors": vectors, "usage": vars(usage)}, cost)
        return vectors

    def _request(
        self, role: Role, place: CallPlace, messages: Sequence[Message], schema: Mapping[str, Any] | None,
        choice: ModelChoice,
    ) -> tuple[ChatRequest, ChatRequest, str]:  # fmt: skip
        """A request as it is sent and as it is kept, and the SHA-256 of that."""
        clean = tuple(replace(message, content=self.redactor.clean(message.content)) for message in messages)
        request = ChatRequest(choice, clean, role, place, schema and self.redactor.document(dict(schema)))
        # What is kept tells nothing that only the provider may know, such as a header with a key.
        kept = replace(request, choice=replace(choice, extra=self.redactor.document(dict(choice.extra))))
        return request, kept, kept.digest()

    async def _attempts(
        self, role: Role, choice: ModelChoice, account: Account, send: Callable[[], Awaitable[_T]],
        retries: int | None = None,
    ) -> tuple[_T, int]:  # fmt: skip
        """Send until it is answered; also how many requests that took. Nothing but CallFailed is tried again."""
        made = 0

        async def attempt() -> _T:
            nonlocal made
            await account.reserve()
            made += 1
            try:
                return await send()
            except CallFailed as error:
                account.failed(error.usage)
                # Providers quote keys in their errors.
                raise CallFailed(self.redactor.redact(str(error)), error.kind, error.retry_after) from None

        policy = self.policy(role) if retries is None else replace(self.policy(role), retries=retries)
        try:
            return await with_retries(policy, attempt, lambda text: self._note(f"{role}: {text}"))
        except CallFailed as error:
            raise explained(error, role, choice.model, made) from None

    def _worst(self, request: ChatRequest) -> Usage:
        """The largest usage that a request can have, by an estimate that is rather too large."""
        model = request.choice.model
        texts = [message.content for message in request.messages]
        if request.schema is not None:
            texts.append(json.dumps(request.schema))
        reply = request.choice.max_tokens or self.backend.reply_tokens(model)
        return Usage(prompt=self._most(model, texts), completion=reply)

    def _most(self, model: str, texts: Sequence[str]) -> int:
        counted = sum(self.backend.count_tokens(model, text) for text in texts)
        return int(_SAFETY * counted) + _TOKENS_PER_TEXT * len(texts)

    def _keep(self, request: ChatRequest, digest: str, reply: ChatReply, cost: _Cost) -> None:
        """Journal a call and its transcript before the reply is used."""
        model, document = request.choice.model, reply.document()
        self._record(request.role, request.place, model, digest, request.document(), document, cost)
        if self._options.log_content:
            for message in request.messages:
                logger.debug("{} {}\n{}", request.role, message.role, message.content)
            logger.debug("{} reply\n{}", request.role, reply.content)

    def _record(
        self, role: Role, place: CallPlace, model: str, digest: str, asked: Any, replied: Any, cost: _Cost
    ) -> None:
        called = events.Called(
            loop=place.loop, step=place.step, attempt=place.attempt, index=0, role=role, model=model, request=digest,
            transcript="", prompt_tokens=cost.usage.prompt, completion_tokens=cost.usage.completion,
            reasoning_tokens=cost.usage.reasoning, cached_tokens=cost.usage.cached, cost_usd=cost.usd,
            seconds=round(cost.seconds, 3), requests=cost.requests,
        )  # fmt: skip
        transcript = {"role": role, "place": asdict(place), "request": asked, "reply": replied, "cost_usd": cost.usd}
        self._calls.keep(called, transcript)
        price = "unknown" if cost.usd is None else f"{cost.usd:.4f}"
        logger.debug(
            "{} by {}: {} + {} tokens, {} dollars, {:.1f} s, {} requests",
            role, model, cost.usage.prompt, cost.usage.completion, price, cost.seconds, cost.requests,
        )  # fmt: skip


@dataclass(frozen=True)
class _Cost:
    usd: float | None
    usage: Usage
    seconds: float
    requests: int
