"""The settings of fine-tuning runs, prefix FT_."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import SecretStr, field_validator
from pydantic_settings import NoDecode

from ftagent.settings.classes import EnvironmentName, Group, names_of
from ftagent.settings.variables import variable


class FineTuneSettings(Group):
    """What is tuned, where it is kept, and the limits of each stage."""

    file_path: Path = variable("FT_FILE_PATH", Path("ftagent_files"), "loop", "Models, datasets and caches")
    log_path: Path = variable("FT_LOG_PATH", Path("log"), "loop", "Run folders; --log-dir wins")
    coder_costeer_env_type: EnvironmentName = variable(
        "FT_CODER_COSTEER_ENV_TYPE", "auto", "environments", "auto, local, docker, conda or ray; --env wins"
    )
    docker_enable_cache: bool = variable(
        "FT_DOCKER_ENABLE_CACHE", True, "environments", "Reuse results of equal stages; run --no-cache wins"
    )
    docker_image: str | None = variable(
        "FT_DOCKER_IMAGE", None, "environments", "Image of docker runs; built from ftagent's own Dockerfile where empty"
    )
    update_llama_factory: bool | None = variable(
        "FT_UPDATE_LLAMA_FACTORY", None, "toolkit", "Accepted", replaced_by="ftagent's own toolkit trains"
    )
    api_max_workers: int = variable(
        "FT_API_MAX_WORKERS", 8, "llm agent", "Concurrent model calls of a data script", ge=1
    )
    strong_models: tuple[str, ...] = variable(
        "FT_STRONG_MODELS", (), "llm agent", "JSON list: strong models for data scripts"
    )
    weak_models: tuple[str, ...] = variable(
        "FT_WEAK_MODELS", (), "llm agent", "JSON list: cheap models for data scripts"
    )
    base_model: str | None = variable("FT_BASE_MODEL", None, "llm scenario", "As --base-model")
    dataset: Annotated[tuple[str, ...], NoDecode] = variable(
        "FT_DATASET", (), "llm scenario", "As --dataset; several with commas"
    )
    target_benchmark: str | None = variable("FT_TARGET_BENCHMARK", None, "llm scenario", "As --benchmark")
    benchmark_description: str | None = variable(
        "FT_BENCHMARK_DESCRIPTION", None, "llm scenario", "As --benchmark-description"
    )
    user_target_scenario: str | None = variable(
        "FT_USER_TARGET_SCENARIO", None, "llm scenario", "What you want from the model, in words"
    )
    upper_data_size_limit: int | None = variable(
        "FT_UPPER_DATA_SIZE_LIMIT", None, "llm scenario", "Largest number of training rows", ge=1
    )
    benchmark_limit: int | None = variable("FT_BENCHMARK_LIMIT", None, "loop", "Items per split; --limit wins", ge=1)
    benchmark_num_runs: int = variable("FT_BENCHMARK_NUM_RUNS", 1, "loop", "Samples per item", ge=1)
    benchmark_pass_k: tuple[int, ...] = variable("FT_BENCHMARK_PASS_K", (), "llm scenario", "JSON list of k for pass@k")
    data_processing_timeout: float = variable(
        "FT_DATA_PROCESSING_TIMEOUT", 3600.0, "llm scenario", "Seconds for preparing data; 0 is none", ge=0
    )
    debug_data_processing_timeout: float = variable(
        "FT_DEBUG_DATA_PROCESSING_TIMEOUT", 1200.0, "llm scenario", "Seconds for the same on a sample", ge=0
    )
    micro_batch_timeout: float = variable(
        "FT_MICRO_BATCH_TIMEOUT", 1800.0, "llm scenario", "Seconds for a rehearsal of training", ge=0
    )
    full_timeout: float = variable("FT_FULL_TIMEOUT", 360000.0, "llm scenario", "Seconds for training; 0 is none", ge=0)
    benchmark_timeout: float = variable(
        "FT_BENCHMARK_TIMEOUT", 0.0, "llm scenario", "Seconds for a benchmark; 0 is none", ge=0
    )
    coder_max_loop: int = variable("FT_CODER_MAX_LOOP", 10, "loop", "Repairs per experiment", ge=0)
    judge_model: str | None = variable(
        "FT_JUDGE_MODEL", None, "llm scenario", "Judge; the chat model where empty", pending=True
    )
    judge_retry: int = variable("FT_JUDGE_RETRY", 10, "llm scenario", "Retries of a judgement", pending=True, ge=0)
    judge_api_key: SecretStr | None = variable(
        "FT_JUDGE_API_KEY", None, "llm scenario", "Key of the judge", pending=True
    )
    judge_api_base: str | None = variable(
        "FT_JUDGE_API_BASE", None, "llm scenario", "Address of the judge", pending=True
    )
    force_think_token: bool = variable(
        "FT_FORCE_THINK_TOKEN", False, "llm scenario", "Wrap chains of thought in think tags", pending=True
    )

    @field_validator("dataset", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return names_of(value)
