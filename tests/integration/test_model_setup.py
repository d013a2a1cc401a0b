"""`ftagent init` at a real terminal and `ftagent doctor`, against a real server that speaks OpenAI's protocol."""

from __future__ import annotations

import json
import os
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ftagent.cli import run as command_line
from support.chat_server import ChatServer, running_server

KEY = "sk-canary-9876543210"
PROGRAM = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from ftagent.cli import main
main()
"""
PROVIDER, ADDRESS, SECRET, MODEL = "Number", "Base URL", "Key (hidden", "Chat model"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with running_server(key=KEY, models=("small-model", "big-model")) as running:
        yield running


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("OPENAI", "CHAT_", "FT_", "FTAGENT_MODEL", "EMBEDDING", "LITELLM")):
            monkeypatch.delenv(name)


class Terminal:
    """A command line of its own at a terminal of its own. `screen` is all that was shown."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._master, slave = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words], cwd=folder, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, env={**os.environ, "COLUMNS": "120", "TERM": "dumb"},
        )  # fmt: skip
        os.close(slave)
        self.screen = ""

    def answer(self, prompt: str, text: str) -> None:
        """Wait until `prompt` is shown after what was answered before, then type `text`."""
        start = len(self.screen)
        while prompt not in self.screen[start:]:
            assert self._read(), f"{prompt!r} did not come: {self.screen}"
        # A hidden prompt drops what was typed before it switched the echo off.
        time.sleep(0.2)
        os.write(self._master, text.encode())

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(timeout=30)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], 90)
        assert ready, f"nothing came for 90 s: {self.screen}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self.screen += data.decode(errors="replace")
        return bool(data)


def test_at_a_terminal_everything_is_asked_and_the_key_is_never_shown(tmp_path: Path, server: ChatServer) -> None:
    terminal = Terminal(tmp_path, "init")
    terminal.answer(PROVIDER, "seven\n")
    terminal.answer(PROVIDER, "7\n")
    terminal.answer(ADDRESS, "127.0.0.1\n")
    terminal.answer(ADDRESS, f"{server.url}\n")
    terminal.answer(SECRET, f"{KEY}\n")
    terminal.answer(MODEL, "\n")
    assert terminal.end() == 0, terminal.screen
    assert KEY not in terminal.screen
    assert "no provider 'seven'" in terminal.screen
    assert "is no address" in terminal.screen
    assert "openai/small-model: answered in " in terminal.screen
    path = tmp_path / ".env"
    assert path.read_text() == (f"CHAT_MODEL=openai/small-model\nOPENAI_API_KEY={KEY}\nOPENAI_API_BASE={server.url}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [(request.body["model"], request.key) for request in server.requests] == [("small-model", KEY)]


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["ctrl-C", "end of input"])
def test_giving_up_at_the_last_question_writes_nothing(tmp_path: Path, key: str) -> None:
    (tmp_path / ".env").write_text("# mine\n")
    terminal = Terminal(tmp_path, "init", "--provider", "openai")
    terminal.answer(SECRET, f"{KEY}\n")
    terminal.answer(MODEL, key)
    assert terminal.end() == 2, terminal.screen
    assert KEY not in terminal.screen
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [(".env", "# mine\n")]


def init(server: ChatServer, *words: str) -> int:
    return command_line(["init", "--provider", "local", "--base-url", server.url, "--key-from-env", "MY_KEY", *words])


def test_a_key_that_is_refused_is_told_without_showing_it(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-wrong-canary-55")
    assert init(server, "--model", "small-model") == 1
    shown = capsys.readouterr()
    assert "canary" not in shown.out + shown.err
    assert "OPENAI_API_KEY" in shown.err
    assert "the test call failed; the settings are written" in shown.err
    assert (tmp_path / ".env").exists()
    assert len(server.requests) == 1


def test_no_test_makes_no_call(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    assert init(server, "--no-test") == 0
    assert server.requests == []


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, Any]]:
    """The checks of `doctor --json` by name."""
    capsys.readouterr()
    code = command_line(["doctor", "--json", *words])
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, json.loads(files("ftagent.cli").joinpath("schemas/doctor.json").read_text()))
    assert code == (0 if document["ok"] else 1)
    return {check["name"]: check for check in document["checks"]}


def settings(tmp_path: Path, server: ChatServer, **more: str) -> None:
    lines = {"CHAT_MODEL": "openai/small-model", "OPENAI_API_BASE": server.url, "OPENAI_API_KEY": KEY, **more}
    (tmp_path / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in lines.items()))


def test_doctor_asks_each_distinct_model_once(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    settings(
        tmp_path, server,
        LITELLM_CHAT_MODEL_MAP='{"code": {"model": "openai/big-model"}, "repair": {"model": "openai/big-model"}}',
        FT_STRONG_MODELS='["openai/big-model", "openai/pool-model"]', EMBEDDING_MODEL="openai/text-embedding-3-small",
        FTAGENT_MODEL_PRICES='{"openai/big-model": {"input": 2, "output": 8}}', USE_CHAT_CACHE="True",
        DUMP_CHAT_CACHE="True", MAX_RETRY="12000",
    )  # fmt: skip
    checks = doctor(capsys)
    models = sorted(request.body["model"] for request in server.requests)
    assert models == ["big-model", "pool-model", "small-model", "text-embedding-3-small"]
    big = checks["model openai/big-model"]
    assert (big["ok"], big["price_known"]) == (True, True)
    assert "for code, repair, scripts; $2 and $8 per million tokens" in big["detail"]
    assert 0 < big["seconds"] < 60
    small = checks["model openai/small-model"]
    assert (small["ok"], small["price_known"]) == (True, False)
    assert "price is unknown" in small["detail"]
    assert checks["model openai/text-embedding-3-small"]["ok"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env"]


@pytest.mark.parametrize(
    ("behaviour", "part"),
    [("401", "OPENAI_API_KEY"), ("404", "CHAT_MODEL"), ("500", "The server had an error"), ("429", "Rate limit")],
)
def test_doctor_tells_what_failed_after_one_request(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str], behaviour: Any, part: str
) -> None:
    settings(tmp_path, server, MAX_RETRY="12000")
    server.behave(behaviour)
    failed = doctor(capsys)["model openai/small-model"]
    assert failed["ok"] is False
    assert part in failed["detail"]
    assert KEY not in json.dumps(failed)
    assert len(server.requests) == 1


def test_doctor_tells_of_an_address_where_nobody_is(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    settings(tmp_path, server, OPENAI_API_BASE="http://127.0.0.1:9/v1")
    failed = doctor(capsys)["model openai/small-model"]
    assert failed["ok"] is False
    assert "127.0.0.1:9" in failed["detail"]
    assert "resume" not in failed["detail"]


def test_doctor_leaves_models_alone_where_that_is_asked_or_none_is_set(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "agent search" in doctor(capsys)["chat model"]["detail"]
    settings(tmp_path, server)
    assert doctor(capsys, "--no-models")["chat model"]["detail"] == "openai/small-model, not asked"
    assert server.requests == []


def test_a_key_that_is_missing_is_one_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".env").write_text("CHAT_MODEL=gpt-5.2\n")
    failed = doctor(capsys)["model gpt-5.2"]
    assert failed["ok"] is False
    assert failed["detail"].startswith("no key; set OPENAI_API_KEY")


def test_a_script_is_read_and_not_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".env").write_text("CHAT_MODEL=scripted/replies.yaml\n")
    assert doctor(capsys)["model scripted/replies.yaml"]["ok"] is False
    (tmp_path / "replies.yaml").write_text("replies:\n- {role: propose, loop: 3, text: ok}\n")
    assert doctor(capsys)["model scripted/replies.yaml"]["ok"]
