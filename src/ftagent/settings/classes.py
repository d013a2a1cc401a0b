"""The settings, one class per part. They validate values; `loading` reads the sources, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from ftagent.settings.variables import variable

EnvironmentName = Literal["auto", "local", "docker", "conda", "ray"]


class Group(BaseSettings):
    """Base of all. Takes values from its caller alone, so that one place knows where each came from."""

    model_config = SettingsConfigDict(case_sensitive=False, extra="forbid", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @field_validator("*")
    @classmethod
    def _home(cls, value: Any) -> Any:
        """`~` in a path is the user's home, as it is in a shell."""
        return value.expanduser() if isinstance(value, Path) else value


class ChatSettings(Group):
    """The chat model of the llm agent, its retries and its caches."""

    backend: str | None = variable("BACKEND", None, "llm agent", "Accepted", replaced_by="LiteLLM is the only backend")
    chat_model: str | None = variable("CHAT_MODEL", None, "llm agent", "Chat model, as LiteLLM names it")
    chat_temperature: float = variable("CHAT_TEMPERATURE", 1.0, "llm agent", "Sampling temperature", ge=0, le=2)
    chat_stream: bool = variable("CHAT_STREAM", True, "llm agent", "Stream replies")
    chat_frequency_penalty: float = variable(
        "CHAT_FREQUENCY_PENALTY", 0.0, "llm agent", "Frequency penalty", ge=-2, le=2
    )
    chat_presence_penalty: float = variable("CHAT_PRESENCE_PENALTY", 0.0, "llm agent", "Presence penalty", ge=-2, le=2)
    openai_api_key: SecretStr | None = variable(
        "OPENAI_API_KEY", None, "llm agent",
        "Key of the chat model; other providers' own variables work too",
    )  # fmt: skip
    openai_api_base: str | None = variable(
        "OPENAI_API_BASE", None, "llm agent", "Address of an OpenAI-compatible endpoint",
        also=("OPENAI_BASE_URL",),
    )  # fmt: skip
    litellm_chat_model_map: dict[str, dict[str, Any]] = variable(
        "LITELLM_CHAT_MODEL_MAP", {}, "llm agent",
        "JSON: step -> {model, reasoning_effort, temperature ...}",
    )  # fmt: skip
    model_prices: dict[str, dict[str, float]] = variable(
        "FTAGENT_MODEL_PRICES", {}, "llm agent",
        "JSON: model -> {input, output, cached} in dollars per million tokens; wins over known prices",
    )  # fmt: skip
    call_timeout: float = variable(
        "FTAGENT_CALL_TIMEOUT", 600.0, "llm agent", "Seconds for one request to a model, streaming included", gt=0
    )
    prompts_path: Path | None = variable(
        "FTAGENT_PROMPTS_PATH", None, "llm agent", "Folder of prompts that replace the agent's own, by file name"
    )
    memory: bool = variable(
        "FTAGENT_MEMORY", True, "llm agent", "Keep lessons of runs under FT_FILE_PATH and offer them to later ones"
    )
    embedding_model: str | None = variable("EMBEDDING_MODEL", None, "llm agent", "Embedding model")
    embedding_use_azure: bool = variable("EMBEDDING_USE_AZURE", False, "llm agent", "Azure naming for embeddings")
    max_retry: int = variable("MAX_RETRY", 10, "llm agent", "Retries of one call to a model", ge=0)
    retry_wait_seconds: float = variable(
        "RETRY_WAIT_SECONDS", 1.0, "llm agent", "Seconds before the first retry; then longer", ge=0
    )
    use_chat_cache: bool = variable("USE_CHAT_CACHE", False, "llm agent", "Read the chat cache")
    dump_chat_cache: bool = variable("DUMP_CHAT_CACHE", False, "llm agent", "Write the chat cache")
    use_embedding_cache: bool = variable("USE_EMBEDDING_CACHE", False, "llm agent", "Read the embedding cache")
    dump_embedding_cache: bool = variable("DUMP_EMBEDDING_CACHE", False, "llm agent", "Write the embedding cache")
    log_llm_chat_content: bool = variable(
        "LOG_LLM_CHAT_CONTENT", True, "llm agent", "Write prompts and replies to the log, which --debug shows"
    )
    reasoning_think_rm: bool = variable(
        "REASONING_THINK_RM", False, "llm agent", "Strip <think>...</think> from replies"
    )

    @field_validator("model_prices")
    @classmethod
    def _prices(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for model, prices in value.items():
            if not {"input", "output"} <= prices.keys() <= {"input", "output", "cached"}:
                raise ValueError(f"{model}: give input and output, and cached where it differs from input")
            if not all(0 <= price < float("inf") for price in prices.values()):
                raise ValueError(f"{model}: a price is 0 or more")
        return value

    @field_validator("litellm_chat_model_map")
    @classmethod
    def _steps(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Steps in our words: `coding` and `running` of other loops mean `code` and `reflect`."""
        renamed = {"coding": "code", "running": "reflect"}
        steps = {renamed.get(step, step): dict(options) for step, options in value.items()}
        for options in steps.values():
            # Other loops write the text "None" for "leave it out".
            if options.get("reasoning_effort") == "None":
                del options["reasoning_effort"]
        return steps


class LoopSettings(Group):
    """How the loop runs and how it shows itself."""

    multi_proc_n: int = variable("MULTI_PROC_N", 1, "loop", "Processes of our own work; --parallel wins", ge=1)
    step_semaphore: int | dict[str, int] = variable(
        "STEP_SEMAPHORE", 1, "loop", "How many of a step run at once: a number, or JSON {step: number}"
    )
    log_format_console: str | None = variable(
        "LOG_FORMAT_CONSOLE", None, "loop", "Format of console logs, in loguru's syntax"
    )
    log_typing_delay: float = variable(
        "LOG_TYPING_DELAY", 0.0, "loop", "Seconds per character of console output on a terminal", ge=0, le=1
    )

    @field_validator("step_semaphore")
    @classmethod
    def _positive(cls, value: int | dict[str, int]) -> int | dict[str, int]:
        numbers = list(value.values()) if isinstance(value, dict) else [value]
        if any(number < 1 for number in numbers):
            raise ValueError("every number must be at least 1")
        return value


class HubSettings(Group):
    """The model hub."""

    hf_token: SecretStr | None = variable("HF_TOKEN", None, "loop", "Token of the hub")
    hf_endpoint: str | None = variable("HF_ENDPOINT", None, "loop", "Address of the hub or a mirror of it")
    hf_home: Path | None = variable(
        "HF_HOME",
        None,
        "loop",
        "Cache of the hub, for models and datasets; without it they are kept under FT_FILE_PATH",
    )
    hf_hub_offline: bool = variable("HF_HUB_OFFLINE", False, "loop", "Use only what is cached")
    data_mirror: Path | None = variable(
        "FTAGENT_DATA_MIRROR", None, "loop", "Folder with mirror.json, used instead of the hub"
    )

    def environment(self) -> dict[str, str]:
        """The variables that hub libraries read themselves, for the process that imports them."""
        values = {
            "HF_TOKEN": self.hf_token.get_secret_value() if self.hf_token else "",
            "HF_ENDPOINT": self.hf_endpoint or "",
            "HF_HOME": str(self.hf_home or ""),
            "HF_HUB_OFFLINE": "1" if self.hf_hub_offline else "",
        }
        return {name: value for name, value in values.items() if value}


class TabularSettings(Group):
    """Competitions on tables."""

    coder_costeer_env_type: EnvironmentName = variable(
        "DS_CODER_COSTEER_ENV_TYPE", "auto", "tabular", "auto, local, docker, conda or ray", pending=True
    )
    local_data_path: Path | None = variable("DS_LOCAL_DATA_PATH", None, "tabular", "The ds_data folder", pending=True)
    debug_timeout: float = variable("DS_DEBUG_TIMEOUT", 3600, "tabular", "Seconds", pending=True, ge=0)
    full_timeout: float = variable("DS_FULL_TIMEOUT", 10800, "tabular", "Seconds", pending=True, ge=0)
    docker_image: str = variable(
        "DS_DOCKER_IMAGE",
        "gcr.io/kaggle-gpu-images/python:latest",
        "tabular",
        "Image of docker runs on tables; where you do not set it, one is built from ftagent's own Dockerfile",
    )
    dockerfile_folder_path: Path | None = variable(
        "DS_DOCKERFILE_FOLDER_PATH", None, "tabular", "Folder of a Dockerfile to build that image from"
    )
    if_using_mle_data: bool = variable(
        "DS_IF_USING_MLE_DATA", False, "tabular", "Prepare and grade with MLE-bench", pending=True
    )
    sample_data_by_llm: bool = variable(
        "DS_SAMPLE_DATA_BY_LLM", False, "tabular", "The agent writes the debug sample", pending=True
    )


class FleetSettings(Group):
    """Runs on several machines."""

    sync_url: str | None = variable("FT_SYNC_URL", None, "fleet", "Remote of sync", pending=True)


class EnvironmentSettings(Group):
    """Where commands execute."""

    conda_env: str | None = variable(
        "FTAGENT_CONDA_ENV", None, "environments", "Name or folder of your conda environment, or a specification file"
    )
    packages: Annotated[tuple[Path, ...], NoDecode] = variable(
        "FTAGENT_ENV_PACKAGES", (), "environments", "Folders of further packages lent read-only; several with commas"
    )
    stage_cache_gb: float = variable(
        "FTAGENT_STAGE_CACHE_GB", 10.0, "environments", "Most disk for results of stages; 0 keeps none", ge=0
    )

    yes_run_unsandboxed: bool = variable(
        "FTAGENT_YES_RUN_UNSANDBOXED", False, "environments", "Run an LLM's code without a sandbox; as the option"
    )

    @field_validator("packages", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return names_of(value)


class DeviceSettings(Group):
    """GPUs."""

    cuda_visible_devices: Annotated[tuple[str, ...] | None, NoDecode] = variable(
        "CUDA_VISIBLE_DEVICES", None, "environments", "GPUs this run may use; --gpus wins"
    )

    @field_validator("cuda_visible_devices", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return names_of(value)


def names_of(value: Any) -> Any:
    """A list written as JSON or with commas, as a tuple of its names."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return tuple(json.loads(value))
        except json.JSONDecodeError as error:
            raise ValueError(f"no JSON list ({error.msg})") from error
    return tuple(name.strip() for name in value.split(",") if name.strip())
