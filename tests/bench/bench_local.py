"""What environment `local` costs: a command that does nothing, against bubblewrap alone and a bare process.

    python tests/bench/bench_local.py [ROUNDS]

The three are interleaved, so that a busy machine slows all of them alike; medians are compared. Ours runs the same
view, and besides adds control groups, limits, the log, listeners and the check of outputs.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ftagent.core.types import Resources, Stage
from ftagent.environments import sandbox
from ftagent.environments.local import LocalEnvironment, LocalOptions

TARGET_MS = 10.0
COMMAND = ("true",)


def run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)


def bubblewrap_command(workspace: Path) -> list[str]:
    python = Path(sys.executable)
    readable = sandbox.program_folders(python, sandbox.import_roots(python))
    view = sandbox.View(workspace, readable, network=False, gpus=False, home=workspace / ".home")
    return ["bwrap", *sandbox.arguments(view, {"PATH": os.environ["PATH"]}, {}), "--", *COMMAND]


async def main(rounds: int) -> int:
    environments = {"plain": LocalEnvironment(LocalOptions(sandbox="none"))}
    if not sandbox.probe():
        environments["sandboxed"] = LocalEnvironment(LocalOptions(sandbox="bubblewrap"))
    stage = Stage("bench", "debug", COMMAND, time_limit=60.0, resources=Resources(memory_mb=500))
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(tempfile.mkdtemp(dir=folder))
        alone = bubblewrap_command(workspace)
        for number in range(rounds + 1):
            for name in ("bare process", "bubblewrap alone", *environments):
                began = time.perf_counter()
                if name == "bare process":
                    run(COMMAND)
                elif name != "bubblewrap alone":
                    done = await environments[name].execute(stage, workspace, print, Path(folder, "log"))
                    assert done.ok, done
                elif "sandboxed" in environments:
                    run(alone)
                if number:  # the first round pays for probes
                    times.setdefault(name, []).append((time.perf_counter() - began) * 1000)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        ratios = ", ".join(f"{median / medians[other]:.2f} x {other}" for other in ("bare process", "bubblewrap alone"))
        print(f"{name:18} {median:7.2f} ms  ({ratios})")
    if "sandboxed" not in environments:
        print("bubblewrap does not work here: no comparison")
        return 0
    added = medians["sandboxed"] - medians["bubblewrap alone"]
    print(f"sandboxed adds {added:.2f} ms to bubblewrap alone (target: under {TARGET_MS:g} ms)")
    return 0 if added < TARGET_MS else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)))
