"""What starts a command beside the broker's socket, and the client for scripts; the socket's other end is a thread."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
REPLY = json.dumps({"choices": [{"message": {"content": "hi"}}]})
SPENT = json.dumps({"error": {"message": "nothing is left", "code": "budget_exceeded"}})


class Outside:
    """Listens on .llm.sock in `folder` and answers each connection with the next of `answers`."""

    def __init__(self, folder: Path) -> None:
        self.answers: list[tuple[int, str]] = []
        self.requests: list[str] = []
        descriptor = os.open(folder, os.O_PATH)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"/proc/self/fd/{descriptor}/.llm.sock")
        os.close(descriptor)
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                request = b""
                while not complete(request) and (piece := connection.recv(65536)):
                    request += piece
                self.requests.append(request.decode())
                status, body = self.answers.pop(0) if self.answers else (200, REPLY)
                head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                connection.sendall((head + body).encode())

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


def complete(request: bytes) -> bool:
    head, _, body = request.partition(b"\r\n\r\n")
    length = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    return bool(length) and len(body) >= int(length[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / ("d" * 120)
    path.mkdir()
    return path


@pytest.fixture
def outside(folder: Path) -> Iterator[Outside]:
    other = Outside(folder)
    yield other
    other.close()


def start(folder: Path, *command: str, **variables: str) -> subprocess.Popen[str]:
    values = {"FTAGENT_LLM_SOCKET": ".llm.sock", "FTAGENT_LLM_TOKEN": "ft-token", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "ftagent.toolkit.broker", *command], cwd=folder, text=True,
        env={**os.environ, **values, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(folder: Path, script: str, **variables: str) -> tuple[int, str, str]:
    process = start(folder, "--", "python", "-c", script, **variables)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def test_any_client_finds_the_socket_through_its_usual_variables(folder: Path, outside: Outside) -> None:
    script = (
        "import os, urllib.request\n"
        "request = urllib.request.Request(os.environ['OPENAI_API_BASE'] + '/models', b'x')\n"
        "request.add_header('Authorization', 'Bearer ' + os.environ['OPENAI_API_KEY'])\n"
        "print(urllib.request.urlopen(request).read().decode())\n"
        "print(os.environ['OPENAI_BASE_URL'] == os.environ['OPENAI_API_BASE'], 'FTAGENT_LLM_TOKEN' in os.environ)\n"
        "print(os.environ['FTAGENT_LLM_SOCKET'])"
    )
    code, out, err = run(folder, script, http_proxy="http://127.0.0.1:9")
    assert (code, err) == (0, "")
    assert out.splitlines() == [REPLY, "True False", str(folder / ".llm.sock")]
    assert outside.requests[0].startswith("POST /v1/models HTTP/1.1\r\n")
    assert "Authorization: Bearer ft-token\r\n" in outside.requests[0]


def test_ask(folder: Path, outside: Outside) -> None:
    outside.answers += [(200, REPLY), (429, SPENT), (502, "<html>")]
    script = (
        "from ftagent.toolkit.llm import ModelError, ask\n"
        "print(ask('hello', temperature=0))\n"
        "for prompt in (['x'], 'y'):\n"
        "    try: ask([{'role': 'user', 'content': 'x'}], model='weak')\n"
        "    except ModelError as error: print(error.code, error)"
    )
    code, out, err = run(folder, script)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "hi", "budget_exceeded nothing is left", " the language model's endpoint answered with HTTP status 502",
    ]  # fmt: skip
    bodies = [json.loads(request.partition("\r\n\r\n")[2]) for request in outside.requests]
    assert bodies[0] == {"temperature": 0, "model": "strong", "messages": [{"role": "user", "content": "hello"}]}
    assert bodies[1]["model"] == "weak"


def test_ask_many_keeps_the_order_and_stops_at_the_first_failure(folder: Path, outside: Outside) -> None:
    outside.answers += [(200, REPLY.replace("hi", str(number))) for number in range(4)] + [(429, SPENT)] * 30
    script = (
        "from ftagent.toolkit.llm import ModelError, ask_many\n"
        "print(ask_many(map(str, range(4)), workers=1))\n"
        "try: ask_many(['x'] * 30, workers=2)\n"
        "except ModelError as error: print(error.code)"
    )
    code, out, err = run(folder, script)
    assert (code, out.splitlines(), err) == (0, ["['0', '1', '2', '3']", "budget_exceeded"], "")
    assert len(outside.requests) < 20


def test_without_a_model_there_is_one_clear_line(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from ftagent.toolkit.llm import ask; ask('x')"], capture_output=True, text=True,
        cwd=folder, env={"PYTHONPATH": str(ROOT / "src")}, check=False, timeout=20,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ftagent.toolkit.llm.ModelError: no language model answers here: OPENAI_BASE_URL is not set "
        "(see docs/broker.md)"
    )


def test_a_socket_that_is_gone_is_an_error_of_the_call_only(folder: Path) -> None:
    script = (
        "from ftagent.toolkit.llm import ModelError, ask\ntry: ask('x')\nexcept ModelError as error: print(error.code)"
    )
    assert run(folder, script) == (0, "unreachable\n", "")


ENDS = {
    "exit(0)": 0,
    "exit(7)": 7,
    "import os; os.kill(os.getpid(), 15)": -15,
    "import os; os.abort()": -6,
    "import os; os.kill(os.getpid(), 9)": -9,
}


@pytest.mark.parametrize(("script", "code"), ENDS.items())
def test_the_end_of_the_command_is_our_end(folder: Path, script: str, code: int) -> None:
    assert run(folder, script) == (code, "", "")


def test_signals_are_passed_on(folder: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: (print('told', flush=True), sys.exit(3)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)"
    )
    process = start(folder, "--", "python", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (3, "told\n", "")


def test_a_command_that_cannot_start(folder: Path) -> None:
    for command, code in (("./nowhere", 127), (str(folder), 126)):
        process = start(folder, "--", command)
        _, err = process.communicate(timeout=20)
        assert process.returncode == code
        assert err.startswith(f"{command}: ")
    for arguments in ((), ("--",), ("python",)):
        process = start(folder, *arguments)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 2
        assert err.startswith("usage: ")


def test_a_client_that_goes_away_ends_its_connection_outside(folder: Path) -> None:
    descriptor = os.open(folder, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{descriptor}/.llm.sock")
        os.close(descriptor)
        listener.listen()
        listener.settimeout(20)
        script = (
            "import os, socket, time, urllib.parse\n"
            "address = urllib.parse.urlsplit(os.environ['OPENAI_BASE_URL'])\n"
            "connection = socket.create_connection((address.hostname, address.port))\n"
            "connection.sendall(b'hello')\n"
            "time.sleep(0.2)\n"
            "connection.close()\n"
            "time.sleep(30)"
        )
        process = start(folder, "--", "python", "-c", script)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20)
            began = time.monotonic()
            assert connection.recv(100) == b"hello"
            assert connection.recv(100) == b""
            assert time.monotonic() - began < 10
        process.terminate()
        process.communicate(timeout=20)
