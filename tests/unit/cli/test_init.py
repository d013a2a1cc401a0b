"""`ftagent init` without a terminal: what it writes, what it refuses, and that a key is never shown."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ftagent.cli.providers import PROVIDERS, provider_of, served_models
from ftagent.core.errors import RequestError
from ftagent.settings.loading import load

from .conftest import CommandLine

KEY = "sk-canary-0123456789"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in PROVIDERS:
        for name in filter(None, (provider.key, provider.base, "OPENAI_BASE_URL", "CHAT_MODEL")):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MY_KEY", KEY)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["openai"], {"CHAT_MODEL": "gpt-5.2", "OPENAI_API_KEY": KEY}),
        (["anthropic", "--model", "claude-x"], {"CHAT_MODEL": "anthropic/claude-x", "ANTHROPIC_API_KEY": KEY}),
        (["gemini", "--model", "gemini/x"], {"CHAT_MODEL": "gemini/x", "GEMINI_API_KEY": KEY}),
        (
            ["azure", "--base-url", "https://a.openai.azure.com", "--model", "my-deployment"],
            {"CHAT_MODEL": "azure/my-deployment", "AZURE_API_KEY": KEY, "AZURE_API_BASE": "https://a.openai.azure.com"},
        ),
        (
            ["local", "--base-url", "http://127.0.0.1:1/v1", "--model", "Qwen/Qwen3"],
            {"CHAT_MODEL": "openai/Qwen/Qwen3", "OPENAI_API_KEY": KEY, "OPENAI_API_BASE": "http://127.0.0.1:1/v1"},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_provider_becomes_settings_that_load(
    ftagent: CommandLine, tmp_path: Path, words: list[str], wanted: dict[str, str]
) -> None:
    answer = ftagent("init", "--provider", *words, "--key-from-env", "MY_KEY", "--no-test")
    assert answer.code == 0, answer.err
    assert KEY not in answer.out + answer.err
    path = tmp_path / ".env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    settings = load(None, {}, tmp_path)
    assert settings.notes == ()
    found = {"CHAT_MODEL": settings.chat.chat_model}
    found |= {name: secret.get_secret_value() for name, secret in settings.credentials.items()}
    assert found == wanted
    assert answer.out.splitlines()[-1] == "next: ftagent run --scenario llm --dry-run"


def test_what_else_is_in_the_file_stays_and_a_copy_is_kept(ftagent: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# mine\nFT_LOG_PATH=runs # here\nCHAT_MODEL=old\n")
    refused = ftagent("init", "--provider", "openai", "--key-from-env", "MY_KEY", "--no-test")
    assert refused.code == 2
    assert "CHAT_MODEL is set already; --force" in refused.err
    assert path.read_text() == "# mine\nFT_LOG_PATH=runs # here\nCHAT_MODEL=old\n"
    answer = ftagent("init", "--provider", "openai", "--key-from-env", "MY_KEY", "--no-test", "--force")
    assert answer.code == 0
    assert path.read_text() == f"# mine\nFT_LOG_PATH=runs # here\nCHAT_MODEL=gpt-5.2\nOPENAI_API_KEY={KEY}\n"
    assert (tmp_path / ".env.backup").read_text().endswith("CHAT_MODEL=old\n")
    assert ".env.backup" in answer.out


def test_the_file_in_effect_is_changed_and_a_named_one_is_made(
    ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("FT_LOG_PATH=runs\n")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    words = ["init", "--provider", "openai", "--key-from-env", "MY_KEY", "--no-test"]
    assert ftagent(*words).code == 0
    assert "CHAT_MODEL=gpt-5.2" in (tmp_path / ".env").read_text()
    assert ftagent(*words, "--env-file", "other.env").code == 0
    assert (tmp_path / "inner" / "other.env").read_text() == f"CHAT_MODEL=gpt-5.2\nOPENAI_API_KEY={KEY}\n"


def test_a_key_that_is_set_already_is_kept(
    ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert ftagent("init", "--provider", "openai", "--no-test").code == 0
    assert (tmp_path / ".env").read_text() == "CHAT_MODEL=gpt-5.2\n"
    monkeypatch.setenv("CHAT_MODEL", "another")
    assert "CHAT_MODEL is also set in the environment" in ftagent("init", "--provider", "openai", "--no-test").err


def test_going_back_to_openai_forgets_the_address_of_another_server(ftagent: CommandLine, tmp_path: Path) -> None:
    words = ["--key-from-env", "MY_KEY", "--no-test", "--force"]
    ftagent("init", "--provider", "local", "--base-url", "http://127.0.0.1:1/v1", "--model", "m", *words)
    assert ftagent("init", "--provider", "openai", *words).code == 0
    assert load(None, {}, tmp_path).chat.openai_api_base is None


def test_none_needs_no_file(ftagent: CommandLine, tmp_path: Path) -> None:
    answer = ftagent("init", "--provider", "none", "--scenario", "noop")
    assert answer.code == 0
    assert "no key" in answer.out
    assert answer.out.splitlines()[-1] == "next: ftagent run --scenario noop --dry-run"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".env").write_text("CHAT_MODEL=x\n")
    assert ftagent("init", "--provider", "none", "--force").code == 0
    assert (tmp_path / ".env").read_text() == "CHAT_MODEL=\n"


def test_hpo_gets_its_file_and_an_edited_one_stays(ftagent: CommandLine, tmp_path: Path) -> None:
    words = ["init", "--provider", "none", "--scenario", "hpo"]
    answer = ftagent(*words)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[-1] == "next: ftagent run --scenario hpo --dry-run"
    path = tmp_path / "hpo.yaml"
    assert list(tmp_path.iterdir()) == [path]
    text = path.read_text()
    assert "TUNABLE_KEYS:" in text
    assert "stays as it is\n" in ftagent(*words).out
    path.write_text("TUNABLE_KEYS: [LOSS]\n")
    assert "hpo.yaml is there already and stays as it is; --force replaces it" in ftagent(*words).out
    assert path.read_text() == "TUNABLE_KEYS: [LOSS]\n"
    assert ftagent(*words, "--force").code == 0
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "give --provider"),
        (["--provider", "openia"], "no provider 'openia'; valid: openai, azure,"),
        (["--provider", "openai"], "needs --key-from-env"),
        (["--provider", "openai", "--key-from-env", "NOWHERE"], "--key-from-env NOWHERE: this variable is not set"),
        (["--provider", "openai", "--key-from-env", "BAD_KEY"], "this is no key"),
        (["--provider", "openai", "--base-url", "http://x", "--key-from-env", "MY_KEY"], "has a fixed address"),
        (["--provider", "azure", "--key-from-env", "MY_KEY"], "needs --base-url"),
        (["--provider", "azure", "--base-url", "x.com", "--key-from-env", "MY_KEY"], "is no address"),
        (["--provider", "azure", "--base-url", "http://x", "--key-from-env", "MY_KEY"], "needs --model"),
        (["--provider", "local", "--base-url", "http://127.0.0.1:1/v1"], "needs --model; the server named none"),
        (["--provider", "openai", "--model", " ", "--key-from-env", "MY_KEY"], "--model is empty"),
        (["--provider", "none", "--scenario", "tabular"], "comes with a later version"),
        (["--provider", "none", "--scenario", "llmm"], "not installed; valid: hpo, llm, noop"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(
    ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], part: str
) -> None:
    monkeypatch.setenv("BAD_KEY", f"{KEY} and more")
    answer = ftagent("init", *words)
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer
    assert part in answer.err
    assert KEY not in answer.out + answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def server() -> Iterator[str]:
    """An endpoint that lists two models to whoever has the key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers.get("Authorization") == f"Bearer {KEY}"
            body = json.dumps({"data": [{"id": "big"}, {"id": "small"}]} if allowed else {"error": "who?"}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/v1"
        http.shutdown()
        thread.join()


def test_a_local_server_is_asked_what_it_serves(ftagent: CommandLine, tmp_path: Path, server: str) -> None:
    assert served_models(server, KEY) == ["big", "small"]
    assert served_models(server, "") == []
    assert served_models("file:///etc/passwd", "") == []
    words = ["init", "--provider", "local", "--base-url", server, "--key-from-env", "MY_KEY", "--no-test"]
    assert ftagent(*words).code == 0
    assert "CHAT_MODEL=openai/big\n" in (tmp_path / ".env").read_text()


def test_every_suggestion_is_known_to_litellm_and_has_a_price_and_a_future() -> None:
    from ftagent.llm.known_models import facts, price_of

    for provider in PROVIDERS:
        assert provider_of(provider.name.upper()) is provider
        # OpenRouter's models are not in the list.
        if provider.model and provider.name != "openrouter":
            assert price_of(provider.model) is not None, provider
            assert "deprecation_date" not in facts(provider.model), provider
    with pytest.raises(RequestError):
        provider_of("9")
