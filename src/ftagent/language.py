"""The language models of a run, put together: one client, the agent that asks it, the broker for scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ftagent.core.calls import Calls, Document, read_transcript
from ftagent.core.errors import RequestError
from ftagent.core.events import Called
from ftagent.core.journal import read_records
from ftagent.core.run_folder import RunFolder
from ftagent.core.state import effective
from ftagent.core.types import CallPlace

if TYPE_CHECKING:
    from ftagent.agents.memory import Embedder
    from ftagent.core.protocols import Agent
    from ftagent.core.types import Brief
    from ftagent.environments.brokered import OpenBroker
    from ftagent.llm.client import ChatClient
    from ftagent.llm.types import Backend, ModelChoice, Role
    from ftagent.request import RunRequest
    from ftagent.settings import Settings

AGENTS = ("auto", "llm", "search", "hybrid")
SPEAKING = ("llm", "hybrid")
"""Those that ask a language model."""
Note = Callable[[str], None]


@dataclass(frozen=True)
class Language:
    """What a run whose agent asks a language model has beside the other parts."""

    client: ChatClient
    open_broker: OpenBroker
    record: dict[str, Any]
    """For run.json: the model of each role and what its backend knows of it. No credentials."""

    def agent(self, name: str, brief: Brief, lessons: Sequence[str], settings: Settings) -> Agent:
        """`name` is one of SPEAKING. Raises RequestError for a template that does not render, and for a plan that
        cannot be followed."""
        from ftagent.agents.hybrid import HybridAgent
        from ftagent.agents.llm import LlmAgent
        from ftagent.agents.prompting import templates_in
        from ftagent.agents.tuning.adviser import LlmAdviser, LlmUnivariateAgent
        from ftagent.agents.tuning.trials import plan_of

        folder = settings.chat.prompts_path
        templates = templates_in(folder) if folder else None
        agent: LlmAgent | LlmUnivariateAgent | HybridAgent
        if name == "hybrid" or (brief.plan is not None and brief.plan.mode == "joint"):
            # All parameters at once are for a sampler: the model gives it the structure.
            agent = HybridAgent(self.client, plan_of(brief), templates, lessons)
        elif brief.plan is not None:
            agent = LlmUnivariateAgent(LlmAdviser(self.client, templates, lessons))
        else:
            agent = LlmAgent(self.client, templates, lessons)
        agent.check(brief)
        return agent


def silent_agent(brief: Brief) -> Agent:
    """The agent that asks no model. Raises RequestError for a plan that cannot be followed."""
    from ftagent.agents.search import SearchAgent
    from ftagent.agents.tuning.joint import JointAgent
    from ftagent.agents.tuning.univariate import UnivariateAgent

    if brief.plan is None:
        return SearchAgent()
    return UnivariateAgent() if brief.plan.mode == "univariate" else JointAgent(brief.plan)


def writes_code(name: str, brief: Brief) -> bool:
    """Whether a model writes files that are executed; agents that tune give values, the files are the scenario's."""
    return name == "llm" and brief.plan is None


def agent_name(request: RunRequest, settings: Settings) -> str:
    """`llm`, `search` or `hybrid`. Raises RequestError for others, and where a model is needed and none is set."""
    if request.agent not in AGENTS:
        raise RequestError(f"--agent {request.agent!r}: no such agent; valid: {', '.join(AGENTS)}")
    if request.agent == "auto":
        return "llm" if settings.chat.chat_model else "search"
    if request.agent in SPEAKING and not settings.chat.chat_model:
        raise RequestError(
            f"--agent {request.agent}: CHAT_MODEL is not set; `ftagent init` sets it, or use --agent search"
        )
    return request.agent


def speak(settings: Settings, calls: Calls, note: Note, files_path: Path) -> Language:
    """Raises RequestError for settings that name no usable model."""
    from ftagent.llm.models import build_client, models_of

    models = models_of(settings)
    client = build_client(settings, calls, note, files_path)
    record = client.redactor.document(_record(client.backend, models, settings))
    return Language(client, _broker(client, record["pools"], settings, note), record)


def repeat(run: RunFolder, settings: Settings, calls: Calls, note: Note) -> Language:
    """The models of a recorded run, which say again what they said. Raises RequestError."""
    from ftagent.llm.models import backend_of
    from ftagent.llm.recorded import ModelFacts, RecordedBackend
    from ftagent.llm.types import ModelChoice, Role

    recorded = run.read_record().get("models")
    if not recorded:
        raise RequestError(f"{run.record}: no models are recorded, so their replies cannot be replayed")
    models = msgspec.convert(recorded["choices"], dict[Role, ModelChoice])
    facts = msgspec.convert(recorded["facts"], dict[str, ModelFacts])
    backend = RecordedBackend(_transcripts(run), facts, backend_of(models, settings, note))
    client = _repeating(backend, models, settings, calls, note)
    return Language(client, _broker(client, recorded["pools"], settings, note), recorded)


def lessons_for(
    request: RunRequest, settings: Settings, brief: Brief, files_path: Path, note: Note, embeds: bool = True
) -> tuple[str, ...]:
    """What earlier runs teach this one; nothing when FTAGENT_MEMORY is off. `embeds`: a model may be asked for it."""
    path = memory_of(settings, files_path)
    if path is None:
        return ()
    from ftagent.agents import memory
    from ftagent.agents.lessons import task_of

    embed = _embedder(settings, files_path, note) if embeds else None
    return memory.lessons_for(path, task_of(asdict(request)), brief, embed=embed, note=note)


def memory_of(settings: Settings, files_path: Path) -> Path | None:
    """Where lessons are kept across runs; None when FTAGENT_MEMORY is off."""
    from ftagent.agents.memory import memory_path

    return memory_path(files_path) if settings.chat.memory else None


def _record(backend: Backend, models: Mapping[Role, ModelChoice], settings: Settings) -> dict[str, Any]:
    """Without credentials."""
    from ftagent.llm.recorded import facts_of

    tune = settings.finetune
    choices = {role: asdict(replace(choice, api_key="", api_base="")) for role, choice in models.items()}
    asked = [*(choice.model for choice in models.values()), *tune.strong_models, *tune.weak_models]
    return {
        "choices": choices,
        "pools": {"strong": list(tune.strong_models), "weak": list(tune.weak_models)},
        "facts": facts_of(backend, asked),
    }


def _broker(client: ChatClient, pools: Mapping[str, Sequence[str]], settings: Settings, note: Note) -> OpenBroker:
    from ftagent.llm.broker import BrokerOptions, opener
    from ftagent.llm.pools import Pools, member

    chat = client.model("script")
    members = {name: [member(chat, model) for model in models] for name, models in pools.items()}
    options = BrokerOptions(settings.finetune.api_max_workers, settings.chat.embedding_model or "")
    return opener(client, Pools(chat, members["strong"], members["weak"]), options, note)


def _repeating(
    backend: Backend, models: Mapping[Role, ModelChoice], settings: Settings, calls: Calls, note: Note
) -> ChatClient:
    """A client that asks `backend` once for each call and keeps nothing beyond the run."""
    from ftagent.llm.cache import ReplyCache
    from ftagent.llm.client import ChatClient, ClientOptions
    from ftagent.llm.redaction import Redactor, secrets_of
    from ftagent.llm.retry import RetryPolicy

    nothing = ReplyCache(Path(), read=False, write=False, note=note)
    options = ClientOptions(RetryPolicy(0, 0.0), {}, {})
    redactor = Redactor(secrets_of(settings))
    return ChatClient(backend, models, calls, options, note=note, redactor=redactor, replies=nothing, vectors=nothing)


def _transcripts(run: RunFolder) -> dict[CallPlace, list[Document]]:
    found: dict[CallPlace, list[Document]] = {}
    for record in effective(read_records(run.journal)):
        if isinstance(called := record.event, Called):
            place = CallPlace(called.loop, called.step, called.attempt)
            found.setdefault(place, []).append(read_transcript(run, called))
    return found


def _embedder(settings: Settings, files_path: Path, note: Note) -> Embedder | None:
    from ftagent.agents.memory import Embedder

    if not settings.chat.embedding_model:
        return None

    def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        from ftagent.llm.models import build_client

        async def session() -> list[list[float]]:
            client = build_client(settings, Calls(), note, files_path)
            try:
                return await client.embed(list(texts))
            finally:
                await client.close()

        return asyncio.run(session())

    return Embedder(settings.chat.embedding_model, embed)
