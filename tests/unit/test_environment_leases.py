"""Leases: real lock files between real processes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftagent.core.errors import EnvironmentUnavailable, FtagentError, RequestError
from ftagent.environments.leases import Leases

HOLDER = """
import asyncio, sys
from pathlib import Path
from ftagent.environments.leases import Leases
async def main():
    async with Leases(Path(sys.argv[1])).hold("gpu", sys.argv[3].split(","), int(sys.argv[2])) as names:
        print(*names, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def holder(folder: Path, count: int, names: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(count), names], stdout=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


async def test_a_killed_holder_gives_back_what_it_held(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "locks")
    first = await asyncio.to_thread(holder, tmp_path / "locks", 2, "0,1")
    try:
        assert first.stdout is not None
        assert (await asyncio.to_thread(first.stdout.readline)).split() == ["0", "1"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), leases.hold("gpu", ["0", "1"]):
                pytest.fail("a lease was given twice")
        first.send_signal(signal.SIGKILL)
        async with asyncio.timeout(5), leases.hold("gpu", ["0", "1"], 2) as names:
            assert names == ("0", "1")
    finally:
        await asyncio.to_thread(ended, first)


async def test_a_killed_waiter_does_not_block_the_queue(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    async with leases.hold("gpu", ["0"]):
        waiter = await asyncio.to_thread(holder, tmp_path, 1, "0")
        async with asyncio.timeout(20):
            while not list(tmp_path.glob("*.ticket")):  # noqa: ASYNC110, ASYNC240 - another process makes it
                await asyncio.sleep(0.02)
        waiter.send_signal(signal.SIGKILL)
        await asyncio.to_thread(ended, waiter)
        assert len(list(tmp_path.glob("*.ticket"))) == 1  # noqa: ASYNC240
    async with asyncio.timeout(2), leases.hold("gpu", ["0"]) as names:
        assert names == ("0",)
    assert list(tmp_path.glob("*.ticket")) == []  # noqa: ASYNC240


async def test_never_more_holders_than_there_are(tmp_path: Path) -> None:
    holding, most, order = 0, 0, []

    async def work(number: int) -> None:
        nonlocal holding, most
        await asyncio.sleep(number * 0.01)
        async with Leases(tmp_path).hold("slot", ["a", "b", "c"]):
            holding += 1
            most = max(most, holding)
            order.append(number)
            await asyncio.sleep(0.1)
            holding -= 1

    await asyncio.gather(*map(work, range(9)))
    assert most == 3
    assert [sorted(order[start : start + 3]) for start in (0, 3, 6)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


async def test_a_large_request_is_not_starved_and_others_are_not_held_up(tmp_path: Path) -> None:
    leases, done = Leases(tmp_path), []

    async def want(label: str, names: list[str], count: int, delay: float) -> None:
        await asyncio.sleep(delay)
        async with leases.hold("gpu", names, count):
            done.append(label)
            await asyncio.sleep(0.05)

    async with leases.hold("gpu", ["1"]):
        tasks = [
            asyncio.ensure_future(want("both", ["0", "1"], 2, 0.0)),
            asyncio.ensure_future(want("later", ["0"], 1, 0.05)),
            asyncio.ensure_future(want("elsewhere", ["2"], 1, 0.1)),
        ]
        await asyncio.sleep(0.6)
        assert done == ["elsewhere"]
    await asyncio.gather(*tasks)
    assert done == ["elsewhere", "both", "later"]


async def test_cancelling_gives_up_the_place(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    async with leases.hold("gpu", ["0"]):
        task = asyncio.ensure_future(leases.hold("gpu", ["0", "1"], 2).__aenter__())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        began = time.monotonic()
        async with leases.hold("gpu", ["1"]):
            assert time.monotonic() - began < 1


async def test_pools_and_odd_names_do_not_meet(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    async with leases.hold("gpu", ["GPU-5/../x"]), leases.hold("slot", ["GPU-5/../x"]) as names:
        assert names == ("GPU-5/../x",)
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*"))  # noqa: ASYNC240


async def test_impossible_requests_are_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="2 of gpu are asked for and there are 1: 0"):
        async with Leases(tmp_path).hold("gpu", ["0"], 2):
            pass
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentUnavailable, match="no locks can be held here"):
        async with Leases(tmp_path / "file" / "x").hold("gpu", ["0"]):
            pass
    with pytest.raises(FtagentError):
        async with Leases(Path("/proc/ftagent")).hold("gpu", ["0"]):
            pass
    with pytest.raises(FileNotFoundError):
        async with Leases(tmp_path).hold("gpu", ["0"]):
            (tmp_path / "of the body").read_text()
