"""One tiny call to each language model that is set up: whether it answers, how fast, and whether its price is known."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ftagent.core.calls import Calls
from ftagent.core.errors import FtagentError
from ftagent.core.types import CallPlace
from ftagent.llm.types import Message, ModelChoice, Price, Role

if TYPE_CHECKING:
    from ftagent.llm.client import ChatClient
    from ftagent.settings import Settings

QUESTION = "Reply with the single word: ok"
_SECONDS = 60.0
_PLACE = CallPlace(None, "propose")
_SCRIPTED = "scripted/"
_Check = Callable[[ModelChoice], None]


@dataclass(frozen=True)
class Probe:
    """What one model did. `problem` is one line that says what failed and what to set; "" where it answered."""

    model: str
    uses: tuple[str, ...]
    """What it is set up for: roles, `scripts`, `embeddings`."""
    seconds: float = 0.0
    price: Price | None = None
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem

    def detail(self) -> str:
        """What to tell of it, in one line."""
        if self.problem:
            # What a run is told: here the model is named already, and there is nothing to resume.
            return re.sub(r"[,;] `ftagent resume`[^;]*$", "", self.problem.removeprefix(f"{self.model}: "))
        used = f" for {', '.join(self.uses)}" if self.uses else ""
        return f"answered in {self.seconds:.1f} s{used}; {price_text(self.price)}"


def price_text(price: Price | None) -> str:
    """Dollars per million tokens, in and out."""
    if price is None:
        return "its price is unknown (FTAGENT_MODEL_PRICES sets it; --budget-usd needs it)"
    return f"${price.prompt * 1e6:g} and ${price.completion * 1e6:g} per million tokens in and out"


def probe(settings: Settings, only_chat_model: bool = False) -> list[Probe]:
    """Ask each distinct model of `settings` once, all at the same time; nothing is retried, cached or recorded.

    `only_chat_model`: CHAT_MODEL alone. What keeps every model from being asked is the problem of one Probe.
    """
    if not settings.chat.chat_model:
        return []
    return asyncio.run(_probe(_once(settings), only_chat_model))


async def _probe(settings: Settings, only_chat_model: bool) -> list[Probe]:
    from ftagent.llm.models import backend_of, build_client, embedding_of, models_of

    try:
        models, embedding = models_of(settings), embedding_of(settings)
        asked = _distinct(models, settings, only_chat_model)
        # Each model tells by itself what is wrong with it, so nothing is checked for all of them here.
        client = build_client(settings, Calls(), _ignored, settings.finetune.file_path, check=False)
        check = backend_of(models, settings, _ignored).check
    except FtagentError as error:
        return [Probe(str(settings.chat.chat_model), (), problem=str(error))]
    try:
        waiting = [_ask(client, check, role, choice, uses) for role, choice, uses in asked]
        if embedding is not None and not only_chat_model:
            waiting.append(_embed(client, check, embedding))
        return list(await asyncio.gather(*waiting))
    finally:
        with contextlib.suppress(FtagentError):
            await client.close()


def _once(settings: Settings) -> Settings:
    """`settings` for a test: no retry, no cache, nothing in the log, a short wait."""
    seconds = min(_SECONDS, settings.chat.call_timeout)
    changes = {
        "max_retry": 0, "use_chat_cache": False, "dump_chat_cache": False, "use_embedding_cache": False,
        "dump_embedding_cache": False, "log_llm_chat_content": False, "call_timeout": seconds,
    }  # fmt: skip
    return replace(settings, chat=settings.chat.model_copy(update=changes))


def _distinct(
    models: Mapping[Role, ModelChoice], settings: Settings, only_chat_model: bool
) -> Sequence[tuple[Role, ModelChoice, tuple[str, ...]]]:
    """Each model and address once, with what it is used for."""
    wanted: list[tuple[str, Role, ModelChoice]] = [
        ("scripts" if role == "script" else role, role, choice)
        for role, choice in models.items()
        if not only_chat_model or choice.model == settings.chat.chat_model
    ]
    if not only_chat_model:
        base = models["script"]
        for name in (*settings.finetune.strong_models, *settings.finetune.weak_models):
            wanted.append(("scripts", "script", replace(base, model=name)))
    found: dict[tuple[str, str, str], tuple[Role, ModelChoice, list[str]]] = {}
    for use, role, choice in wanted:
        entry = found.setdefault((choice.model, choice.api_base, choice.api_key), (role, choice, []))
        if use not in entry[2]:
            entry[2].append(use)
    return [(role, choice, tuple(uses)) for role, choice, uses in found.values()]


async def _ask(client: ChatClient, check: _Check, role: Role, choice: ModelChoice, uses: tuple[str, ...]) -> Probe:
    choice = replace(choice, time_limit=min(choice.time_limit, _SECONDS))

    async def call() -> None:
        check(choice)
        # Most scripts have no reply for this question; that they read is what matters.
        if not choice.model.startswith(_SCRIPTED):
            await client.chat(role, _PLACE, [Message("user", QUESTION)], choice=choice)

    return await _timed(client, choice.model, uses, call)


async def _embed(client: ChatClient, check: _Check, choice: ModelChoice) -> Probe:
    async def call() -> None:
        check(choice)
        await client.embed([QUESTION])

    return await _timed(client, choice.model, ("embeddings",), call)


async def _timed(
    client: ChatClient, model: str, uses: tuple[str, ...], call: Callable[[], Awaitable[None]]
) -> Probe:  # fmt: skip
    price, started = None, time.monotonic()
    try:
        price = client.price(model)
        await call()
    except FtagentError as error:
        return Probe(model, uses, time.monotonic() - started, price, str(error))
    return Probe(model, uses, time.monotonic() - started, price)


def _ignored(note: str) -> None:
    """Notes tell of parameters that a model does not take: no matter for a test."""
