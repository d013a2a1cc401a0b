"""What becomes of the processes that one command starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

STARTER = """
import json, sys
from ftagent.toolkit.launch import _forwarding, _started

words = [sys.executable, "-c", "import time; time.sleep(60)"]
with _started(words, 2) as children, _forwarding(children):
    print(json.dumps([child.pid for child in children]), flush=True)
    children[0].wait()
"""


def test_a_command_that_is_told_to_end_leaves_none_behind() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        children: list[int] = json.loads(command.stdout.readline())
        command.send_signal(signal.SIGTERM)
        code = command.wait(20)
    alive = [child for child in children if Path(f"/proc/{child}").exists()]
    for child in alive:
        os.kill(child, signal.SIGKILL)
    assert (code, alive) == (128 + signal.SIGTERM, [])
