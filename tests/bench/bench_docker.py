"""What environment `docker` costs: a command that does nothing, against the SDK alone, `docker run` and a bare process.

    python tests/bench/bench_docker.py [ROUNDS] [IMAGE]

They are interleaved, so that a busy machine slows all of them alike; medians are compared. The SDK alone makes, starts,
waits for and removes a container with the same confinement. Ours besides attaches to it, puts the toolkit and process 1
into it, reads its output, reports how it ended and lends it the workspace.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ftagent.core.types import Resources, Stage
from ftagent.environments.docker import DockerEnvironment, DockerOptions
from ftagent.environments.docker_config import DEFAULT_PATH, EngineFacts, Image, container_config, identity_of
from ftagent.environments.docker_engine import address, why_unreachable
from ftagent.environments.docker_image import ImageSource

TARGET_MS = 50.0
COMMAND = ("/bin/sh", "-c", "exit 0")
STAGE = Stage("bench", "debug", COMMAND, time_limit=60.0, resources=Resources(memory_mb=500))


def bare_config(image: str, workspace: Path) -> dict[str, Any]:
    """The same container without what is ours."""
    who = identity_of(os.getuid(), os.getgid(), os.getgroups(), EngineFacts())
    config = container_config(STAGE, workspace, Image(image, image), who, EngineFacts(), {"PATH": DEFAULT_PATH}, {})
    config["HostConfig"]["Mounts"] = config["HostConfig"]["Mounts"][:1]
    streams = ("OpenStdin", "StdinOnce", "AttachStdin", "AttachStdout", "AttachStderr")
    return {**config, **dict.fromkeys(streams, False), "Entrypoint": list(COMMAND), "Cmd": []}


def run(command: tuple[str, ...]) -> None:
    subprocess.run(command, check=True)


def sdk_alone(client: Any, config: dict[str, Any]) -> None:
    made = client.create_container_from_config(config)["Id"]
    client.start(made)
    assert client.wait(made)["StatusCode"] == 0
    client.remove_container(made)


async def main(rounds: int, image: str) -> int:
    from docker import APIClient

    if why := why_unreachable(address(os.environ)):
        print(f"no comparison: {why}")
        return 0
    client = APIClient(base_url=address(os.environ), version="auto")
    environment = DockerEnvironment(DockerOptions(ImageSource(image)))
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(tempfile.mkdtemp(dir=folder))
        config = bare_config(image, workspace)
        names = ["bare process", "SDK alone", "ours", *(["docker run"] if shutil.which("docker") else [])]
        for number in range(rounds + 1):
            for name in names:
                began = time.perf_counter()
                if name == "bare process":
                    run(COMMAND)
                elif name == "SDK alone":
                    sdk_alone(client, config)
                elif name == "docker run":
                    run(("docker", "run", "--rm", "--network", "none", image, *COMMAND))
                else:
                    done = await environment.execute(STAGE, workspace, print, Path(folder, "log"))
                    assert done.ok, done
                if number:  # the first round pays for imports and questions
                    times.setdefault(name, []).append((time.perf_counter() - began) * 1000)
    await environment.close()
    client.close()
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(
            f"{name:14} {median:8.1f} ms  (fastest {min(times[name]):.1f}, {median / medians['SDK alone']:.2f} x SDK)"
        )
    added = statistics.median(ours - alone for ours, alone in zip(times["ours"], times["SDK alone"], strict=True))
    print(f"ours adds {added:.1f} ms to the SDK alone, median of {rounds} pairs (target: under {TARGET_MS:g} ms)")
    return 0 if added < TARGET_MS else 1


if __name__ == "__main__":
    chosen = sys.argv[2] if len(sys.argv) > 2 else "ftagent-test/python:3.11"
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, chosen)))
