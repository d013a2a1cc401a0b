"""The requests that the llm agent makes, without a model that answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from ftagent.agents.llm import LlmAgent
from ftagent.core.errors import NoUsableReply
from ftagent.core.types import Brief, CallPlace, Left
from ftagent.llm.types import ChatReply, Message, Role
from support import traces


@dataclass
class Listener:
    """Takes the place of a client: it notes what it is asked and never answers."""

    context: int = 128_000
    heard: list[Sequence[Message]] = field(default_factory=list)

    def context_tokens(self, role: Role) -> int:
        return self.context

    def count_tokens(self, role: Role, text: str) -> int:
        return -(-len(text) // 4)

    def follows_schema(self, role: Role) -> bool:
        return False

    async def chat(
        self, role: Role, place: CallPlace, messages: Sequence[Message], schema: Mapping[str, Any] | None = None
    ) -> ChatReply:
        self.heard.append(messages)
        raise NoUsableReply("nobody answers")


def requests(brief: Brief, loops: int, context: int = 128_000, lessons: Sequence[str] = ()) -> dict[str, str]:
    """Role → the whole conversation that the step of loop `loops` begins with."""
    listener = Listener(context)
    agent = LlmAgent(listener, lessons=lessons)  # type: ignore[arg-type]
    trace = traces.trace(brief, loops, left=Left(3, 3600.0, 1.5))
    failed, failure = traces.failed_experiment(brief, max(loops, 1))
    best = max((e for e in trace.experiments if e.validation), key=lambda e: e.loop, default=None)
    hypothesis = traces.hypothesis(brief, loops, best)
    finished = traces.experiment(loops if loops % 4 != 3 else loops + 1, brief, Random(7), best, failed.files)

    async def ask(step: Any) -> str:
        with contextlib.suppress(NoUsableReply):
            await step
        return "".join(f"==== {message.role}\n{message.content}" for message in listener.heard[-1])

    async def session() -> dict[str, str]:
        return {
            "propose": await ask(agent.propose(brief, trace)),
            "code": await ask(agent.code(brief, trace, hypothesis)),
            "repair": await ask(agent.repair(brief, failed, failure)),
            "reflect": await ask(agent.reflect(brief, trace, finished, traces.outcome(finished))),
        }

    return asyncio.run(session())
