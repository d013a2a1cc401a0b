"""Commands wait for a slot and share the GPUs that their stages name."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ftagent.core.protocols import OnLine
from ftagent.core.types import Execution, Purpose, Resources, Stage
from ftagent.environments.leased import LeasedEnvironment


class Counting:
    """Notes which GPUs a command got and how many commands ran at once."""

    name = "counting"
    sealed = True

    def __init__(self) -> None:
        self.gpus: list[tuple[str, ...]] = []
        self.running = self.most = 0

    async def prepare(self, purpose: Purpose) -> None: ...

    async def modules(self) -> frozenset[str]:
        return frozenset()

    async def execute(self, stage: Stage, workspace: Path, on_line: OnLine, log: Path) -> Execution:
        self.gpus.append(stage.resources.gpus)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.1)
        self.running -= 1
        return Execution(stage.name, "ok", 0.1)

    async def close(self) -> None: ...


def run(tmp_path: Path, parallel: int, gpus: tuple[str, ...], commands: int) -> Counting:
    inner = Counting()

    async def session() -> None:
        environment = LeasedEnvironment(inner, tmp_path / "leases", parallel)
        stage = Stage("train", "full", ("true",), resources=Resources(gpus=gpus))
        work = [environment.execute(stage, tmp_path, lambda line: None, tmp_path / "log") for _ in range(commands)]
        await asyncio.gather(*work)
        await environment.close()

    asyncio.run(session())
    return inner


def test_two_at_once_share_four_gpus_without_overlap(tmp_path: Path) -> None:
    inner = run(tmp_path, 2, ("0", "1", "2", "3"), 2)
    assert sorted(gpu for gpus in inner.gpus for gpu in gpus) == ["0", "1", "2", "3"]
    assert inner.most == 2


def test_one_at_a_time_gets_all_gpus(tmp_path: Path) -> None:
    inner = run(tmp_path, 1, ("0", "1"), 3)
    assert inner.gpus == [("0", "1")] * 3
    assert inner.most == 1


def test_no_slot_file_stays_behind(tmp_path: Path) -> None:
    run(tmp_path, 2, (), 2)
    assert not list((tmp_path / "leases").glob("slot-*"))
