"""Getting the replies that a script asked for: from the record, else from a model of the pool it named."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from ftagent.core.errors import AgentUnavailable, FtagentError, NoUsableReply
from ftagent.core.recorded import Different
from ftagent.core.session import LimitReached
from ftagent.core.types import CallPlace
from ftagent.llm.pools import Pools
from ftagent.llm.retry import RetryPolicy
from ftagent.llm.script_requests import Refusal, ScriptCall
from ftagent.llm.types import ChatReply, Message, ModelChoice, Role

_SPENT = (
    "the run's budget for language models is spent and no further call is made; "
    "end now: the stage is repeated when the budget is raised, and what was answered is kept"
)
_DOWN = "the model {name!r} cannot be used now; this is no fault of the script, so end with an error"


class ScriptClient(Protocol):
    """What the broker needs of `ChatClient`."""

    def start_over(self, role: Role, place: CallPlace) -> None:
        """Whoever asks as `role` at `place` begins anew: recorded replies are found again from the first."""
        ...

    def recorded(
        self, role: Role, place: CallPlace, messages: Sequence[Message], schema: Mapping[str, Any] | None,
        choices: Sequence[ModelChoice],
    ) -> tuple[ModelChoice, ChatReply] | None:  # fmt: skip
        """The next reply to this from any of `choices` that the run has on record; None when there is none left."""
        ...

    async def chat(
        self, role: Role, place: CallPlace, messages: Sequence[Message], schema: Mapping[str, Any] | None = None,
        choice: ModelChoice | None = None, retries: int | None = None,
    ) -> ChatReply:  # fmt: skip
        """Raises NoUsableReply, AgentUnavailable, LimitReached, StorageFull. None `retries`: as set for the run."""
        ...

    async def embed(
        self, texts: Sequence[str], role: Role = "script", place: CallPlace | None = None
    ) -> list[list[float]]:
        """Raises what `chat` raises."""
        ...

    def policy(self, role: Role) -> RetryPolicy:
        """How often and how long after a failure a role's calls are tried again."""
        ...

    def redact(self, text: str) -> str:
        """`text` without any secret."""
        ...


class ScriptCalls:
    """Asks for the scripts of one stage. All that it raises for a script is Refusal."""

    def __init__(self, client: ScriptClient, pools: Pools, place: CallPlace, note: Callable[[str], None]) -> None:
        self._client = client
        self._pools = pools
        self._place = place
        self._note = note
        self._said: set[str] = set()
        self._asked: Counter[str] = Counter()
        self.blocked: FtagentError | None = None
        """What kept the last call from its reply and is no fault of the script."""
        client.start_over("script", place)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text."""
        with self._refusing("embedding"):
            return await self._client.embed(texts, "script", self._place)

    async def samples(self, call: ScriptCall, slots: asyncio.Semaphore) -> list[tuple[str, ChatReply]]:
        """One after the other in the slot that the call has, and more at once while `slots` are free.

        In the order in which they came, which is that of the record: a repeated stage gets them in the same order.
        """
        wanted = iter(range(call.samples))
        replies: list[tuple[str, ChatReply]] = []
        refusals: list[Refusal] = []
        idle: set[asyncio.Task[Any] | None] = set()

        async def some() -> None:
            for _ in wanted:
                if refusals:
                    return
                try:
                    replies.append(await self._sample(call))
                except Refusal as refusal:
                    refusals.append(refusal)  # what others have asked for is paid: they may end

        async def some_beside() -> None:
            async with slots:
                idle.discard(asyncio.current_task())
                await some()

        try:
            async with asyncio.TaskGroup() as group:
                idle.update(group.create_task(some_beside()) for _ in range(call.samples - 1))
                await some()
                for task in filter(None, idle):
                    task.cancel()
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        if refusals:
            raise refusals[0]
        return replies

    async def _sample(self, call: ScriptCall) -> tuple[str, ChatReply]:
        """The model and its reply: from the record, else from the first member of a pool that has one."""
        key = call.key()
        number = self._asked[key]
        self._asked[key] += 1
        members = [call.choice(member) for member in self._pools.members(call.model)]
        known = self._client.recorded("script", self._place, call.messages, call.schema, members)
        if known is not None:
            return known[0].model, known[1]
        order = [call.choice(member) for member in self._pools.turn(call.model, key, number)]
        with self._refusing(call.model):
            if len(order) == 1:
                return order[0].model, await self._ask(call, order[0])
            return await self._ask_pool(call, order)

    async def _ask_pool(self, call: ScriptCall, order: Sequence[ModelChoice]) -> tuple[str, ChatReply]:
        """Each member once, the next at once when one fails; then, after a wait, those that may come back."""
        failures: dict[str, FtagentError] = {}

        async def each(members: Sequence[ModelChoice], retries: int) -> tuple[str, ChatReply] | None:
            for choice in members:
                try:
                    return choice.model, await self._ask(call, choice, retries)
                except (NoUsableReply, AgentUnavailable, Different) as error:  # a replay knows who was asked
                    failures[choice.model] = error
                    if not isinstance(error, Different):
                        self.say(f"a script's call to {choice.model} failed: {error}")
            return None

        found = await each(order, 0)
        waits = {m: e.retry_after for m, e in failures.items() if isinstance(e, AgentUnavailable) and e.passing}
        policy = self._client.policy("script")
        if found is None and waits and policy.retries:
            members = sorted((c for c in order if c.model in waits), key=lambda choice: waits[choice.model] or 0.0)
            await policy.sleep(policy.wait(1, waits[members[0].model]))
            found = await each(members, policy.retries - 1)
        if found is None:
            raise failures[order[0].model]
        return found

    async def _ask(self, call: ScriptCall, choice: ModelChoice, retries: int | None = None) -> ChatReply:
        return await self._client.chat("script", self._place, call.messages, call.schema, choice, retries)

    @contextlib.contextmanager
    def _refusing(self, name: str) -> Iterator[None]:
        """Failures of a call, as what a script is told; and whose fault it was."""
        try:
            yield
        except LimitReached as error:
            self.blocked = error
            raise Refusal(429, "budget_exceeded", _SPENT) from error
        except AgentUnavailable as error:
            self.blocked = error
            raise Refusal(503, "model_unavailable", _DOWN.format(name=name)) from error
        except NoUsableReply as error:
            raise Refusal(400, "no_usable_reply", self._client.redact(str(error))) from error
        self.blocked = None

    def say(self, text: str) -> None:
        """To the user, each text once a stage."""
        if text not in self._said:
            self._said.add(text)
            self._note(self._client.redact(text))
