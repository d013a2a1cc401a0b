"""Settings: the file that users bring, precedence, origins, and what is said about bad values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ftagent.core.errors import RequestError
from ftagent.settings.loading import GROUPS, Settings, Value, load
from ftagent.settings.variables import declared

USERS_FILE = r"""
BACKEND=rdagent.oai.backend.LiteLLMAPIBackend
CHAT_MODEL=gpt-5.2
CHAT_TEMPERATURE=1
CHAT_STREAM=True
OPENAI_API_KEY=sk-xxx
OPENAI_API_BASE=http://your-api-endpoint
EMBEDDING_MODEL=text-embedding-ada-002
EMBEDDING_USE_AZURE=True
MAX_RETRY=12000
RETRY_WAIT_SECONDS=5
MULTI_PROC_N=16
STEP_SEMAPHORE=1
DUMP_CHAT_CACHE=False
USE_CHAT_CACHE=False
DUMP_EMBEDDING_CACHE=True
USE_EMBEDDING_CACHE=True
LOG_LLM_CHAT_CONTENT=True
CHAT_FREQUENCY_PENALTY=0.1
CHAT_PRESENCE_PENALTY=0.0
FT_FILE_PATH=/path/to/your/finetune/workspace
FT_Coder_CoSTEER_env_type=conda
FT_DOCKER_ENABLE_CACHE=True
FT_UPDATE_LLAMA_FACTORY=False
FT_API_MAX_WORKERS=1000
FT_STRONG_MODELS='["gpt-5", "gpt-5.1"]'
FT_WEAK_MODELS='["gpt-4o-mini"]'
FT_TARGET_BENCHMARK=aime25
FT_USER_TARGET_SCENARIO="I need to enhance the model's performance on math reasoning tasks."
FT_DATA_PROCESSING_TIMEOUT=28800
REASONING_THINK_RM=True
LOG_FORMAT_CONSOLE="{time:YYYY-MM-DD HH:mm:ss.SSS} | {level: <8} | <cyan>{process}</cyan> | {name}:{function}:{line} - {message}"
HF_TOKEN=hf_xxx
LITELLM_CHAT_MODEL_MAP='{"coding":{"model":"o3-mini","reasoning_effort":"high"},"running":{"model":"o3-mini","reasoning_effort":"high"}}'
"""  # noqa: E501  # literally what users have

O3 = {"model": "o3-mini", "reasoning_effort": "high"}
EFFECTIVE: dict[str, Any] = {
    "BACKEND": "rdagent.oai.backend.LiteLLMAPIBackend",
    "CHAT_MODEL": "gpt-5.2",
    "CHAT_TEMPERATURE": 1.0,
    "CHAT_STREAM": True,
    "OPENAI_API_KEY": "sk-xxx",
    "OPENAI_API_BASE": "http://your-api-endpoint",
    "EMBEDDING_MODEL": "text-embedding-ada-002",
    "EMBEDDING_USE_AZURE": True,
    "MAX_RETRY": 12000,
    "RETRY_WAIT_SECONDS": 5.0,
    "MULTI_PROC_N": 16,
    "STEP_SEMAPHORE": 1,
    "DUMP_CHAT_CACHE": False,
    "USE_CHAT_CACHE": False,
    "DUMP_EMBEDDING_CACHE": True,
    "USE_EMBEDDING_CACHE": True,
    "LOG_LLM_CHAT_CONTENT": True,
    "CHAT_FREQUENCY_PENALTY": 0.1,
    "CHAT_PRESENCE_PENALTY": 0.0,
    "FT_FILE_PATH": Path("/path/to/your/finetune/workspace"),
    "FT_CODER_COSTEER_ENV_TYPE": "conda",
    "FT_DOCKER_ENABLE_CACHE": True,
    "FT_UPDATE_LLAMA_FACTORY": False,
    "FT_API_MAX_WORKERS": 1000,
    "FT_STRONG_MODELS": ("gpt-5", "gpt-5.1"),
    "FT_WEAK_MODELS": ("gpt-4o-mini",),
    "FT_TARGET_BENCHMARK": "aime25",
    "FT_USER_TARGET_SCENARIO": "I need to enhance the model's performance on math reasoning tasks.",
    "FT_DATA_PROCESSING_TIMEOUT": 28800.0,
    "REASONING_THINK_RM": True,
    "LOG_FORMAT_CONSOLE": "{time:YYYY-MM-DD HH:mm:ss.SSS} | {level: <8} | <cyan>{process}</cyan> | "
    "{name}:{function}:{line} - {message}",
    "HF_TOKEN": "hf_xxx",
    "LITELLM_CHAT_MODEL_MAP": {"code": O3, "reflect": O3},
}
# SETTINGS.md's table: every name in it, with the default that it gives.
DEFAULTS: dict[str, Any] = {
    "CHAT_MODEL": None, "CHAT_TEMPERATURE": 1, "CHAT_STREAM": True, "CHAT_FREQUENCY_PENALTY": 0,
    "CHAT_PRESENCE_PENALTY": 0, "LITELLM_CHAT_MODEL_MAP": {}, "EMBEDDING_MODEL": None, "EMBEDDING_USE_AZURE": False,
    "MAX_RETRY": 10, "RETRY_WAIT_SECONDS": 1, "USE_CHAT_CACHE": False, "DUMP_CHAT_CACHE": False,
    "USE_EMBEDDING_CACHE": False, "DUMP_EMBEDDING_CACHE": False, "LOG_LLM_CHAT_CONTENT": True,
    "REASONING_THINK_RM": False, "MULTI_PROC_N": 1, "STEP_SEMAPHORE": 1, "LOG_TYPING_DELAY": 0, "HF_TOKEN": None,
    "HF_ENDPOINT": None, "HF_HOME": None, "HF_HUB_OFFLINE": False, "FT_FILE_PATH": Path("ftagent_files"),
    "FT_LOG_PATH": Path("log"), "FT_CODER_COSTEER_ENV_TYPE": "auto", "DS_CODER_COSTEER_ENV_TYPE": "auto",
    "FT_DOCKER_ENABLE_CACHE": True, "FT_DOCKER_IMAGE": None, "FT_API_MAX_WORKERS": 8, "FT_STRONG_MODELS": (),
    "FT_WEAK_MODELS": (), "FT_BASE_MODEL": None, "FT_DATASET": (), "FT_TARGET_BENCHMARK": None,
    "FT_BENCHMARK_DESCRIPTION": None, "FT_USER_TARGET_SCENARIO": None, "FT_UPPER_DATA_SIZE_LIMIT": None,
    "FT_BENCHMARK_LIMIT": None, "FT_BENCHMARK_NUM_RUNS": 1, "FT_BENCHMARK_PASS_K": (),
    "FT_DATA_PROCESSING_TIMEOUT": 3600, "FT_DEBUG_DATA_PROCESSING_TIMEOUT": 1200, "FT_MICRO_BATCH_TIMEOUT": 1800,
    "FT_FULL_TIMEOUT": 360000, "FT_BENCHMARK_TIMEOUT": 0, "FT_CODER_MAX_LOOP": 10, "FT_JUDGE_MODEL": None,
    "FT_JUDGE_RETRY": 10, "FT_JUDGE_API_KEY": None, "FT_JUDGE_API_BASE": None, "FT_FORCE_THINK_TOKEN": False,
    "FT_SYNC_URL": None, "FTAGENT_DATA_MIRROR": None, "DS_LOCAL_DATA_PATH": None, "DS_DEBUG_TIMEOUT": 3600,
    "DS_FULL_TIMEOUT": 10800, "DS_DOCKER_IMAGE": "gcr.io/kaggle-gpu-images/python:latest",
    "DS_DOCKERFILE_FOLDER_PATH": None, "DS_IF_USING_MLE_DATA": False, "DS_SAMPLE_DATA_BY_LLM": False,
    "CUDA_VISIBLE_DEVICES": None, "BACKEND": None, "FT_UPDATE_LLAMA_FACTORY": None, "OPENAI_API_KEY": None,
    "OPENAI_API_BASE": None, "LOG_FORMAT_CONSOLE": None, "FTAGENT_MODEL_PRICES": {},
    "FTAGENT_CALL_TIMEOUT": 600, "FTAGENT_PROMPTS_PATH": None, "FTAGENT_MEMORY": True,
    "FTAGENT_CONDA_ENV": None, "FTAGENT_ENV_PACKAGES": (), "FTAGENT_STAGE_CACHE_GB": 10,
    "FTAGENT_YES_RUN_UNSANDBOXED": False,
}  # fmt: skip


def written(folder: Path, text: str) -> Path:
    path = folder / ".env"
    path.write_text(text)
    return path


def value(settings: Settings, name: str) -> Value:
    return next(value for value in settings.values if name in value.variable.names)


def raw(settings: Settings, name: str) -> Any:
    found = value(settings, name).value
    return found.get_secret_value() if hasattr(found, "get_secret_value") else found


def test_the_file_that_users_bring_loads_unchanged(tmp_path: Path) -> None:
    path = written(tmp_path, USERS_FILE)
    settings = load(None, {}, tmp_path)
    assert {name: raw(settings, name) for name in EFFECTIVE} == EFFECTIVE
    assert {value(settings, name).origin for name in EFFECTIVE} == {str(path)}
    assert len(EFFECTIVE) == len(USERS_FILE.strip().splitlines())


def test_every_value_of_that_file_is_effective_or_warned_about_once(tmp_path: Path) -> None:
    written(tmp_path, USERS_FILE)
    settings = load(None, {}, tmp_path)
    for name in EFFECTIVE:
        variable = value(settings, name).variable
        said = [note for note in settings.notes if re.match(rf"{name}\b", note)]
        wanted = 1 if variable.pending or variable.replaced_by else 0
        assert len(said) == wanted, name
    # What has no effect: another loop's backend and trainer, and what is still to come.
    ineffective = ["BACKEND", "FT_UPDATE_LLAMA_FACTORY"]
    assert sorted(note.split()[0] for note in settings.notes) == ineffective
    assert any("LiteLLM is the only backend" in note for note in settings.notes)


def test_what_waits_for_its_part_is_said_so_and_nothing_else(tmp_path: Path) -> None:
    pending = {v.variable.name for v in load(None, {}, tmp_path).values if v.variable.pending}
    judge = {"FT_JUDGE_MODEL", "FT_JUDGE_RETRY", "FT_JUDGE_API_KEY", "FT_JUDGE_API_BASE", "FT_FORCE_THINK_TOKEN"}
    assert {name for name in pending if name.startswith("FT_")} == {
        *judge, "FT_SYNC_URL"
    }  # fmt: skip
    assert all(name.startswith("DS_") for name in pending if not name.startswith("FT_"))


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    settings = load(None, {}, tmp_path)
    assert {v.variable.name: v.value for v in settings.values} == DEFAULTS
    assert {v.origin for v in settings.values} == {"default"}
    assert settings.notes == ()


def test_environment_wins_over_the_file_under_any_of_its_names(tmp_path: Path) -> None:
    written(tmp_path, "CHAT_MODEL=from-file\nOPENAI_API_BASE=http://file\nMAX_RETRY=3\n")
    settings = load(None, {"chat_model": "from-env", "OPENAI_BASE_URL": "http://env"}, tmp_path)
    assert (raw(settings, "CHAT_MODEL"), raw(settings, "OPENAI_API_BASE")) == ("from-env", "http://env")
    assert settings.origin("OPENAI_BASE_URL") == "environment"
    assert settings.origin("MAX_RETRY") == str(tmp_path / ".env")


def test_an_empty_value_is_not_set(tmp_path: Path) -> None:
    written(tmp_path, "FT_LOG_PATH=runs\nHF_TOKEN=\n")
    settings = load(None, {"FT_LOG_PATH": ""}, tmp_path)
    assert settings.finetune.log_path == Path("runs")
    assert settings.hub.hf_token is None


def test_the_file_is_searched_upwards_past_a_folder_of_that_name(tmp_path: Path) -> None:
    written(tmp_path, "FT_LOG_PATH=up\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "a" / ".env").mkdir()
    assert load(None, {}, inner).finetune.log_path == Path("up")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("FT_DATASET=a, b\n", ("a", "b")),
        ('FT_DATASET=["a", "b,c"]\n', ("a", "b,c")),
        ("FT_DATASET=one\n", ("one",)),
    ],
)
def test_lists_may_be_written_with_commas_or_as_json(tmp_path: Path, text: str, wanted: tuple[str, ...]) -> None:
    written(tmp_path, text)
    assert load(None, {}, tmp_path).finetune.dataset == wanted


def test_reasoning_effort_none_means_unset(tmp_path: Path) -> None:
    settings = load(None, {"LITELLM_CHAT_MODEL_MAP": '{"coding": {"reasoning_effort": "None"}}'}, tmp_path)
    assert settings.chat.litellm_chat_model_map == {"code": {}}


def test_other_providers_keys_are_kept_for_the_agent(tmp_path: Path) -> None:
    settings = load(None, {"ANTHROPIC_API_KEY": "k", "FT_JUDGE_API_KEY": "j", "PATH": "/bin"}, tmp_path)
    assert set(settings.credentials) == {"ANTHROPIC_API_KEY"}


def test_a_misspelt_name_is_told_with_the_nearest(tmp_path: Path) -> None:
    notes = load(None, {"FT_FUL_TIMEOUT": "3", "SOMETHING_ELSE": "x"}, tmp_path).notes
    assert notes == ("FT_FUL_TIMEOUT is no setting of ftagent; did you mean FT_FULL_TIMEOUT?",)


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("MULTI_PROC_N", "0", "greater than or equal to 1"),
        ("CHAT_STREAM", "maybe", "valid boolean"),
        ("FT_STRONG_MODELS", "gpt-5", "not valid JSON"),
        ("FT_CODER_COSTEER_ENV_TYPE", "dokcer", "'docker'"),
        ("STEP_SEMAPHORE", '{"code": 0}', "at least 1"),
        ("FT_DATASET", "[a", "no JSON list"),
        ("LITELLM_CHAT_MODEL_MAP", "3", "dictionary"),
        ("FT_BENCHMARK_PASS_K", '["x"]', "integer"),
        ("FTAGENT_MODEL_PRICES", '{"m": {"input": 1}}', "m: give input and output"),
        ("FTAGENT_MODEL_PRICES", '{"m": {"input": 1, "output": 2, "ouput": 2}}', "m: give input and output"),
        ("FTAGENT_MODEL_PRICES", '{"m": {"input": 1, "output": -2}}', "0 or more"),
        ("FTAGENT_MODEL_PRICES", '{"m": {"input": NaN, "output": 2}}', "0 or more"),
        ("FTAGENT_MODEL_PRICES", "m=3", "not valid JSON"),
        ("FTAGENT_CALL_TIMEOUT", "0", "greater than 0"),
    ],
)
def test_a_bad_value_names_variable_origin_and_what_is_right(tmp_path: Path, name: str, text: str, part: str) -> None:
    with pytest.raises(RequestError) as caught:
        load(None, {name: text}, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{name} (environment): ")
    assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "part"),
    [(b'A="never closed\nB=2\n', ":1:"), (b"X=1\n\xff\xfe=2\n", "not UTF-8"), (b"X=1\n = 2\n", ":2:")],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(RequestError, match=re.escape(part)):
        load(None, {}, tmp_path)


def test_secrets_never_show(tmp_path: Path) -> None:
    environ = {
        "OPENAI_API_KEY": "canary-1", "HF_TOKEN": "canary-2", "FT_JUDGE_API_KEY": "canary-3",
        "OPENAI_API_BASE": "http://user:canary-4@host/v1", "ANTHROPIC_API_KEY": "canary-5",
        "LITELLM_CHAT_MODEL_MAP": '{"code": {"api_key": "canary-6", "extra_headers": {"x": "canary-7"}}}',
    }  # fmt: skip
    settings = load(None, environ, tmp_path)
    assert "canary" not in str([value.shown for value in settings.values])
    assert "canary" not in str(settings.notes)
    assert "canary" not in repr(settings.credentials)


def test_numbers_of_tokens_are_no_secrets(tmp_path: Path) -> None:
    options = {"code": {"max_tokens": 5, "input_cost_per_token": 0.1}}
    settings = load(None, {"LITELLM_CHAT_MODEL_MAP": json.dumps(options)}, tmp_path)
    assert value(settings, "LITELLM_CHAT_MODEL_MAP").shown == options


def test_the_example_file_documents_every_variable_with_its_default() -> None:
    text = (Path(__file__).parents[3] / ".env.example").read_text()
    found = dict(re.findall(r"^# ([A-Z_0-9]+)=(.*)$", text, flags=re.MULTILINE))
    known = {declared(info).name: info for cls in GROUPS.values() for info in cls.model_fields.values()}
    assert set(found) == set(known)


def test_the_example_file_uncommented_equals_the_defaults(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / ".env.example").read_text()
    written(tmp_path, re.sub(r"^# (?=[A-Z_0-9]+=)", "", text, flags=re.MULTILINE))
    settings = load(None, {}, tmp_path)
    assert {v.variable.name: v.value for v in settings.values} == DEFAULTS
