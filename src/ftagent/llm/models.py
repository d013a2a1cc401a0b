"""From settings to models: which one answers for which role, whether it can be asked, and the client that asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError

from ftagent.core.calls import Calls
from ftagent.core.errors import RequestError
from ftagent.llm.backends import Backends
from ftagent.llm.cache import ReplyCache
from ftagent.llm.client import ChatClient, ClientOptions
from ftagent.llm.ledger import unpriced
from ftagent.llm.redaction import SHORTEST, Redactor, secrets_of
from ftagent.llm.retry import RetryPolicy
from ftagent.llm.scripted import PREFIX
from ftagent.llm.types import ROLES, ModelChoice, Price, Role

if TYPE_CHECKING:
    from ftagent.settings import Settings

_MAP = "LITELLM_CHAT_MODEL_MAP"
_STEPS: tuple[Role, ...] = ("propose", "code", "repair", "reflect", "judge")
_MILLION = 1e6


class _Options(BaseModel):
    """One step of LITELLM_CHAT_MODEL_MAP; what is no field goes to LiteLLM as it is."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    model: str = Field("", min_length=1)
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    reasoning_effort: str | None = None
    max_tokens: PositiveInt | None = None
    stream: bool = True
    api_key: str = ""
    api_base: str = Field("", validation_alias=AliasChoices("api_base", "base_url"))
    time_limit: float = Field(600.0, gt=0, validation_alias=AliasChoices("timeout", "time_limit"))
    input_cost_per_token: NonNegativeFloat | None = None
    output_cost_per_token: NonNegativeFloat | None = None
    cache_read_input_token_cost: NonNegativeFloat | None = None

    def over(self, choice: ModelChoice) -> ModelChoice:
        """`choice` with what is set here."""
        priced = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost")
        given = {name: getattr(self, name) for name in self.model_fields_set & type(self).model_fields.keys()}
        changes = {name: value for name, value in given.items() if name not in priced}
        return replace(choice, **changes, extra=dict(self.model_extra or {}))


def models_of(settings: Settings) -> dict[Role, ModelChoice]:
    """The model of every role. Raises RequestError where none is set, and for a map that does not read.

    A map's `code` answers for `repair` too unless that has its own; FT_JUDGE_* wins over the map.
    """
    chat, tune, steps = settings.chat, settings.finetune, _steps(settings)
    if not chat.chat_model:
        raise RequestError("CHAT_MODEL is not set, so there is no model to ask; `ftagent init` sets it")
    base = ModelChoice(
        model=chat.chat_model, temperature=chat.chat_temperature, stream=chat.chat_stream,
        # 0 is what providers do without these parameters, and some refuse them.
        frequency_penalty=chat.chat_frequency_penalty or None, presence_penalty=chat.chat_presence_penalty or None,
        time_limit=chat.call_timeout, strip_thinking=chat.reasoning_think_rm,
    )  # fmt: skip
    models = dict.fromkeys(ROLES, base)
    for role in _STEPS:
        options = steps.get(role) or (steps.get("code") if role == "repair" else None)
        if options is not None:
            models[role] = options.over(base)
    key = tune.judge_api_key.get_secret_value() if tune.judge_api_key else ""
    judge = {"model": tune.judge_model, "api_key": key, "api_base": tune.judge_api_base}
    models["judge"] = replace(models["judge"], **{name: value for name, value in judge.items() if value})  # type: ignore[arg-type]  # all are texts
    return models


def embedding_of(settings: Settings) -> ModelChoice | None:
    """The model for embeddings; None where none is set."""
    from ftagent.llm.targets import embedding_model

    chat = settings.chat
    if not chat.embedding_model:
        return None
    name = chat.embedding_model
    name = name if name.startswith(PREFIX) else embedding_model(name, chat.embedding_use_azure)
    return ModelChoice(name, temperature=None, stream=False, time_limit=chat.call_timeout)


def prices_of(settings: Settings) -> dict[str, Price]:
    """What users say that models cost: in LITELLM_CHAT_MODEL_MAP, and in FTAGENT_MODEL_PRICES, which wins.

    Raises RequestError for half a price.
    """
    prices = {}
    for role, options in _steps(settings).items():
        prompt, completion = options.input_cost_per_token, options.output_cost_per_token
        if (prompt is None) != (completion is None):
            raise RequestError(f"{_MAP}: {role}: give both input_cost_per_token and output_cost_per_token")
        if prompt is not None and completion is not None:
            model = options.model or settings.chat.chat_model or ""
            prices[model] = Price(prompt, completion, options.cache_read_input_token_cost)
    for model, given in settings.chat.model_prices.items():
        cached = given.get("cached")
        prices[model] = Price(
            given["input"] / _MILLION, given["output"] / _MILLION, None if cached is None else cached / _MILLION
        )
    return prices


def backend_of(models: Mapping[Role, ModelChoice], settings: Settings, note: Callable[[str], None]) -> Backends:
    """Who knows and asks the models, scripted ones and real ones. Needs no key and no network by itself."""
    credentials = {name: value.get_secret_value() for name, value in settings.credentials.items()}
    if settings.chat.openai_api_key:
        credentials.setdefault("OPENAI_API_KEY", settings.chat.openai_api_key.get_secret_value())
    if settings.chat.openai_api_base:
        credentials.setdefault("OPENAI_API_BASE", settings.chat.openai_api_base)
    return Backends(credentials, prices_of(settings), note)


def build_client(
    settings: Settings, calls: Calls, note: Callable[[str], None], files_path: Path, check: bool = True
) -> ChatClient:
    """The client of a run; `calls` is opened with the run's session, `files_path` is FT_FILE_PATH.

    Raises RequestError for settings that do not read and, with `check`, where a model cannot be asked: a script
    that does not read, a name that nobody serves, a key that is not set.
    """
    models, embedding, chat = models_of(settings), embedding_of(settings), settings.chat
    backend = backend_of(models, settings, note)
    redactor = Redactor(secrets_of(settings))
    if redactor.too_short:
        note(f"{redactor.too_short} secret(s) of fewer than {SHORTEST} characters cannot be redacted from texts")
    pools = (*settings.finetune.strong_models, *settings.finetune.weak_models)
    if check:
        in_pools = (replace(models["script"], model=model) for model in pools)
        for choice in (*models.values(), *in_pools, *([embedding] if embedding else [])):
            backend.check(choice)
    wait, path = chat.retry_wait_seconds, files_path / "cache" / "llm.sqlite"
    options = ClientOptions(
        policy=RetryPolicy(chat.max_retry, wait),
        policies={"judge": RetryPolicy(settings.finetune.judge_retry, wait)},
        prices={},  # the backend knows them
        embedding=embedding,
        log_content=chat.log_llm_chat_content,
        pools=pools,
    )
    return ChatClient(
        backend, models, calls, options, note=note, redactor=redactor,
        replies=ReplyCache(path, chat.use_chat_cache, chat.dump_chat_cache, note),
        vectors=ReplyCache(path, chat.use_embedding_cache, chat.dump_embedding_cache, note),
    )  # fmt: skip


def check_prices(client: ChatClient) -> None:
    """For `--budget-usd`. Raises RequestError naming a model that may be asked and whose price is unknown."""
    for model in client.models:
        if client.price(model) is None:
            raise unpriced(model)


def _steps(settings: Settings) -> dict[Role, _Options]:
    """LITELLM_CHAT_MODEL_MAP, validated. Raises RequestError."""
    steps: dict[Role, _Options] = {}
    for name, given in settings.chat.litellm_chat_model_map.items():
        role = next((step for step in _STEPS if step == name), None)
        if role is None:
            raise RequestError(
                f"{_MAP} ({settings.origin(_MAP)}): there is no step {name!r}; valid: {', '.join(_STEPS)} "
                "(coding and running of other loops mean code and reflect)"
            )
        try:
            steps[role] = _Options.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in (name, *first["loc"]))
            raise RequestError(f"{_MAP} ({settings.origin(_MAP)}): {where}: {str(first['msg']).lower()}") from error
    return steps
