"""A command line of its own at a pseudo-terminal of its own."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

PROGRAM = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from ftagent.cli import main
main()
"""
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


class Terminal:
    """`screen` is all that was shown, `plain` is that without colours and movements."""

    def __init__(
        self, folder: Path, *words: str, columns: int = 80, term: str = "xterm", patience: float = 120
    ) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words], cwd=folder, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, env={**environment, "TERM": term},
        )  # fmt: skip
        os.close(slave)
        self._patience = patience
        self._bytes = b""
        self._seen = 0

    @property
    def screen(self) -> str:
        return self._bytes.decode(errors="replace").replace("\r\n", "\n")

    @property
    def plain(self) -> str:
        return _ESCAPE.sub("", self.screen)

    def expect(self, text: str) -> str:
        """Wait until `text` is shown after what was expected before; returns what came up to it."""
        while text not in self.plain[self._seen :]:
            assert self._read(), f"{text!r} did not come: {self.plain[self._seen :]!r} after {self.plain!r}"
        start = self._seen
        end = self.plain.index(text, start)
        self._seen = end + len(text)
        return self.plain[start:end]

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def pause(self, seconds: float) -> None:
        """Read what comes in this time, for what leaves no trace on the screen."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._master], [], [], left)[0]:
                self._read()

    def end(self) -> int:
        """The exit code, once it ended by itself."""
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(timeout=self._patience)

    def kill(self) -> None:
        """For a test that failed."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], self._patience)
        assert ready, f"nothing came for {self._patience} s: {self.plain!r}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self._bytes += data
        return bool(data)
