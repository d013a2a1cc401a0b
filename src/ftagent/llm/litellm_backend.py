"""Any model through LiteLLM: one attempt at a request, bounded in time and size, its failure classified."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from ftagent.llm import known_models
from ftagent.llm.connections import close_cached_clients, openai_client, request_sent
from ftagent.llm.failures import ParameterRefused, failure_of
from ftagent.llm.library import known_warnings_ignored, load_litellm
from ftagent.llm.parameters import Parameters
from ftagent.llm.streams import Parts, read_message, read_stream
from ftagent.llm.targets import Target, target_of
from ftagent.llm.types import CallFailed, ChatReply, ChatRequest, Message, ModelChoice, Price, Usage

PREPARED_SECONDS = 1.0
"""Time for LiteLLM to hand a request to the network; clients that are not ours do not tell when they have."""


def _no_note(line: str) -> None: ...


class LiteLLMBackend:
    """`Backend` over LiteLLM, for one event loop; `close` when done.

    `credentials` are keys and addresses by the names of their variables (OPENAI_API_KEY, ANTHROPIC_API_KEY,
    AZURE_API_BASE, …); `note` gets one line for every parameter that a model does not take.
    """

    def __init__(self, credentials: Mapping[str, str] | None = None, note: Callable[[str], None] = _no_note) -> None:
        self._credentials = dict(credentials or {})
        self._parameters = Parameters(note)
        self._clients: dict[tuple[str, str], Any] = {}
        self._litellm: Any = None

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises CallFailed; its usage counts what had arrived of a reply that did not end."""
        choice, parts = request.choice, Parts()
        target = await self._target(choice)
        parameters = self._parameters.of(choice, request.schema, target)
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        try:
            with known_warnings_ignored():
                async with asyncio.timeout(choice.time_limit):
                    await self._ask(target, {**parameters, "messages": messages}, parts, choice.time_limit)
        except TimeoutError as error:
            message = f"{target.asked}: no complete reply within {choice.time_limit:g} s"
            raise CallFailed(message, "time_out", usage=self._arrived(target, request, parts)) from error
        except CallFailed:
            raise
        except Exception as error:
            # LiteLLM raises far more than it documents; all of it is classified.
            raise self._failure(error, target, request, parameters, parts) from error
        if parts.finish_reason is None:
            raise self._unfinished(target, request, parts)
        if parts.usage is None:
            parts.usage = await asyncio.to_thread(self._counted, target, request.messages, parts)
        return parts.reply()

    async def embed(self, choice: ModelChoice, texts: Sequence[str]) -> tuple[list[list[float]], Usage]:
        """One vector per text. Raises CallFailed."""
        if not texts:
            return [], Usage()
        target = await self._target(choice)
        parameters = {**self._access(target, choice.time_limit), **choice.extra, "input": list(texts)}
        try:
            with known_warnings_ignored():
                async with asyncio.timeout(choice.time_limit):
                    response = await _uncut(self._litellm.aembedding(**parameters))
            rows = sorted(response.data, key=lambda row: int(row["index"]))
            vectors = [[float(value) for value in row["embedding"]] for row in rows]
        except TimeoutError as error:
            raise CallFailed(f"{target.asked}: no answer within {choice.time_limit:g} s", "time_out") from error
        except Exception as error:
            raise failure_of(error, target.asked) from error
        if len(vectors) != len(texts):
            raise CallFailed(f"{target.asked}: {len(vectors)} vectors for {len(texts)} texts", "server")
        tokens = int(getattr(response.usage, "prompt_tokens", 0) or 0)
        return vectors, Usage(prompt=tokens or sum(self.count_tokens(choice.model, text) for text in texts))

    def price(self, model: str) -> Price | None:
        """Dollars per token from LiteLLM's list; None where unknown."""
        return known_models.price_of(model)

    def context_tokens(self, model: str) -> int:
        """Largest prompt; a cautious 8192 where unknown."""
        return known_models.context_tokens_of(model)

    def reply_tokens(self, model: str) -> int:
        """Largest reply; 16384 where unknown."""
        return known_models.reply_tokens_of(model)

    def count_tokens(self, model: str, text: str) -> int:
        """Tokens by the tokenizer that LiteLLM has for `model`, else by OpenAI's."""
        with known_warnings_ignored():
            return int(load_litellm().token_counter(model=model, text=text))

    def follows_schema(self, model: str) -> bool:
        """Whether replies can be held to a JSON schema, and the server has not refused one."""
        return known_models.follows_schema(model) and not self._parameters.refused(model, "response_format")

    async def close(self) -> None:
        """Close all connections of this event loop; the backend can be used again."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()
        if self._litellm is not None:
            await close_cached_clients(self._litellm)

    async def _target(self, choice: ModelChoice) -> Target:
        if self._litellm is None:
            # Importing takes seconds; the loop should not stand still meanwhile.
            self._litellm = await asyncio.to_thread(load_litellm)
        return target_of(choice, self._credentials)

    async def _ask(self, target: Target, parameters: Mapping[str, Any], parts: Parts, seconds: float) -> None:
        response = await _uncut(self._litellm.acompletion(**self._access(target, seconds), **parameters))
        if not parameters.get("stream"):
            read_message(response, parts)
            return
        try:
            await read_stream(response, parts)
        finally:
            await response.aclose()

    def _access(self, target: Target, seconds: float) -> dict[str, Any]:
        """Model, address, key and limits of a request; LiteLLM's retries and those of the SDK below it are off."""
        access: dict[str, Any] = {"model": target.model, "max_retries": 0, "num_retries": 0, "drop_params": True}
        access |= dict(target.further)
        # Longer than the limit around the whole call, which is the one that tells what had arrived.
        access["timeout"] = seconds + 5
        if target.provider == "openai":
            access["client"] = self._client(target)
        return access | {name: value for name, value in (("api_base", target.api_base), ("api_key", target.api_key))
                         if value}  # fmt: skip

    def _client(self, target: Target) -> Any:
        """LiteLLM's own clients live in a cache for ten minutes, and who closes them is left to chance."""
        if not target.api_key and not target.api_base:
            raise CallFailed(f"{target.asked}: no key; set {target.asked.key_name}", "authentication")
        found = self._clients.get((target.api_base, target.api_key))
        if found is None:
            found = openai_client(target.api_base, target.api_key)
            self._clients[target.api_base, target.api_key] = found
        return found

    def _failure(
        self, error: Exception, target: Target, request: ChatRequest, parameters: Mapping[str, Any], parts: Parts
    ) -> CallFailed:
        failure = failure_of(error, target.asked, parameters.keys())
        if isinstance(failure, ParameterRefused):
            self._parameters.leave_out(target, failure.parameter)
        elif failure.kind == "too_long":
            tokens = self._counted(target, request.messages, Parts()).prompt
            known = self.context_tokens(request.choice.model)
            return CallFailed(
                f"{failure}; the prompt has about {tokens} tokens, {known} are expected to fit", "too_long"
            )
        elif usage := self._arrived(target, request, parts):
            return CallFailed(str(failure), failure.kind, failure.retry_after, usage)
        return failure

    def _unfinished(self, target: Target, request: ChatRequest, parts: Parts) -> CallFailed:
        why = "in the middle of the reply" if parts.size else "without a reply (CHAT_STREAM=False may help)"
        return CallFailed(f"{target.asked}: the stream ended {why}", "cut", usage=self._arrived(target, request, parts))

    def _arrived(self, target: Target, request: ChatRequest, parts: Parts) -> Usage | None:
        """What a provider charges for a reply that did not end; None where none began."""
        return self._counted(target, request.messages, parts) if parts.size else None

    def _counted(self, target: Target, messages: Sequence[Message], parts: Parts) -> Usage:
        """Our own count, for servers that send none. Every message costs a few tokens beside its text."""
        prompt = sum(self.count_tokens(target.model, message.content) + 4 for message in messages)
        reasoning = self.count_tokens(target.model, "".join(parts.reasoning))
        return Usage(prompt, self.count_tokens(target.model, parts.text), reasoning)


async def _uncut(call: Coroutine[Any, Any, Any]) -> Any:
    """`call`, cancelled only once its request is under way: LiteLLM prepares a coroutine in a thread, and nobody
    would ever await it if the one who waits for the thread were cancelled."""
    sent = asyncio.Event()
    token = request_sent.set(sent)
    task = asyncio.create_task(call)
    request_sent.reset(token)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        marked = asyncio.create_task(sent.wait())
        try:
            await asyncio.wait((task, marked), timeout=PREPARED_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            marked.cancel()
            task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled() and task.exception() is None and hasattr(task.result(), "aclose"):
            await task.result().aclose()
        raise
