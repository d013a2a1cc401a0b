"""Starts a command that may ask language models: `python -m ftagent.toolkit.broker -- COMMAND...`.

The broker outside listens on a socket in the workspace, which works without any network. OpenAI's client and all that
are like it speak HTTP over TCP: this listens on loopback, passes every byte on, and tells the command where and with
which key, so that `openai.OpenAI()` works as it is. What comes from outside are the variables FTAGENT_LLM_SOCKET,
FTAGENT_LLM_TOKEN and FTAGENT_LLM_CONNECTIONS (how many the broker takes at once).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from types import FrameType

USAGE = "usage: python -m ftagent.toolkit.broker -- COMMAND..."
OURS = ("FTAGENT_LLM_TOKEN", "FTAGENT_LLM_CONNECTIONS")
"""Variables that the command does not get."""
BACKLOG = 1024
PIECE = 64 * 1024
PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


class Forwarder:
    """Passes connections to a loopback port on to the socket `path`, `most` at once, until this process ends."""

    def __init__(self, path: str, most: int) -> None:
        self._most = most
        # A path of more than 107 bytes is no address, whatever its folder; one below /proc is short.
        self._folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: PTH120
        self._address = f"/proc/self/fd/{self._folder}/{os.path.basename(path)}"  # noqa: PTH119
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]

    def start(self) -> None:
        """Pass on from now on, in a thread."""
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()

    async def _serve(self) -> None:
        limit = asyncio.Semaphore(self._most)  # what waits here costs the broker nothing

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with limit:
                await self._forward(reader, writer)

        server = await asyncio.start_server(connected, sock=self._listener, backlog=BACKLOG, limit=PIECE)
        await server.serve_forever()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._address, limit=PIECE)
        except OSError:
            writer.transport.abort()  # the stage is over, or somebody deleted the socket
            return
        ways = [asyncio.create_task(_pump(reader, up_writer)), asyncio.create_task(_pump(up_reader, writer))]
        # Whoever ends first ends both: a client that has gone away wants no answer, and one answer is all there is.
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        for end in (up_writer, writer):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()


def variables(host: Mapping[str, str], port: int, path: str, token: str) -> dict[str, str]:
    """The variables of the command: those of `host`, and where language models answer."""
    address = f"http://127.0.0.1:{port}/v1"
    direct = ",".join(filter(None, (host.get("NO_PROXY", ""), "127.0.0.1")))
    return {
        **{name: value for name, value in host.items() if name not in OURS},
        "OPENAI_BASE_URL": address,
        "OPENAI_API_BASE": address,
        "OPENAI_API_KEY": token,
        "FTAGENT_LLM_SOCKET": path,
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


def main(arguments: list[str]) -> int:
    """The command's exit code; a command that a signal ended ends this process in the same way."""
    token, name = os.environ.get("FTAGENT_LLM_TOKEN", ""), os.environ.get("FTAGENT_LLM_SOCKET", "")
    if arguments[:1] != ["--"] or len(arguments) < 2 or not token or not name:
        sys.stderr.write(f"{USAGE}; FTAGENT_LLM_SOCKET and FTAGENT_LLM_TOKEN must be set\n")
        return 2
    path = os.path.abspath(name)  # noqa: PTH100 - links stay as they are
    forwarder = Forwarder(path, int(os.environ.get("FTAGENT_LLM_CONNECTIONS", "8")))
    command = [sys.executable, *arguments[2:]] if arguments[1] == "python" else arguments[1:]
    try:
        child = subprocess.Popen(command, env=variables(os.environ, forwarder.port, path, token))
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126
    _pass_signals_on(child)
    _raise_descriptor_limit()
    forwarder.start()
    code = child.wait()
    return code if code >= 0 else _end_by(-code)


def _pass_signals_on(child: subprocess.Popen[bytes]) -> None:
    def handler(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    for name in PASSED_ON:
        signal.signal(getattr(signal, name), handler)


def _raise_descriptor_limit() -> None:
    """After the command has started: it keeps the limit that it was given."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _end_by(number: int) -> int:
    """End as the command did. The exit code is for a signal that does not end this process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
