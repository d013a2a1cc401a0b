"""What is taken from the cache of stages, what never is, and what becomes of it under faults."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftagent.core.errors import StageRefused, StorageFull
from ftagent.core.journal import read_records
from ftagent.core.run_folder import RunFolder
from ftagent.core.types import Candidate, Execution, Mount, Purpose, Resources, Split, Stage
from ftagent.core.workspace import Workspace
from ftagent.environments import snapshot
from ftagent.environments.cached import FROM_CACHE, CachedEnvironment
from ftagent.environments.local import LocalEnvironment, LocalOptions
from ftagent.environments.stage_cache import StageCache
from ftagent_noop.scenario import NoopScenario
from support import drive, noop

# Never the same twice, unless it comes from the cache.
SCRIPT = """
import os, pathlib, secrets
pathlib.Path("train.jsonl").write_text(secrets.token_hex(8))
pathlib.Path("deep/er").mkdir(parents=True, exist_ok=True)
pathlib.Path("deep/note").write_bytes(bytes(range(256)))
pathlib.Path("new\\nline\\udcff").write_text("odd")
os.chmod("deep/note", 0o700)
pathlib.Path("data.txt").write_text(pathlib.Path("data.txt").read_text() + "more")
print("prepared", secrets.token_hex(8))
"""
STAGE = Stage("prepare", "debug", ("python", "-c", SCRIPT), time_limit=60.0, files={"given.json": "[1]"},
              outputs=("train.jsonl",), reusable=True)  # fmt: skip
GIB = 1 << 30


class Site:
    """A cache, and as many fresh workspaces with the same content as are asked for."""

    def __init__(self, folder: Path, limit: int = GIB) -> None:
        self.folder = folder
        self.cache = StageCache(folder / "cache", limit)
        self.environment = CachedEnvironment(LocalEnvironment(), self.cache)
        self.lines: list[str] = []
        self.count = 0

    @property
    def log(self) -> Path:
        return self.folder / f"{self.count}.log"

    def workspace(self, **files: str) -> Path:
        self.count += 1
        path = self.folder / f"workspace-{self.count}"
        Workspace(path).write({"data.txt": "rows", **files})
        return path

    async def run(self, stage: Stage = STAGE, workspace: Path | None = None) -> tuple[Execution, Path]:
        workspace = workspace or self.workspace()
        return await self.environment.execute(stage, workspace, self.lines.append, self.log), workspace

    async def fresh(self, stage: Stage = STAGE, workspace: Path | None = None) -> bool:
        """Whether `stage` was executed, not taken from the cache."""
        done, _ = await self.run(stage, workspace)
        return done.detail != FROM_CACHE

    def entries(self) -> list[Path]:
        return sorted(self.folder.glob("cache/*"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def text(path: Path) -> str:
    return path.read_text(errors="replace")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


async def test_a_hit_brings_everything_that_the_stage_left_and_says_so(site: Site) -> None:
    first, one = await site.run()
    logged = text(site.log)
    assert first.detail == ""
    site.lines.clear()
    second, two = await site.run()
    assert snapshot.take(one) == snapshot.take(two)
    assert (two / "deep/er").is_dir()
    assert os.access(two / "deep/note", os.X_OK)
    assert text(two / "data.txt") == "rowsmore"
    assert replace(second, seconds=0, detail="") == replace(first, seconds=0, detail="")
    assert second.detail == FROM_CACHE
    assert second.seconds < first.seconds
    assert text(site.log) == logged
    assert site.lines == [f"{FROM_CACHE}: an equal stage took {first.seconds:.1f} s"]
    # And it is no longer equal once it has been there.
    assert await site.fresh(workspace=two)


def mount(folder: Path, content: str) -> Mount:
    folder.mkdir(exist_ok=True)
    (folder / "rows").write_text(content)
    return Mount("rows", str(folder))


DIFFERENT: dict[str, Callable[[Stage], Stage]] = {
    "command": lambda stage: replace(stage, command=(*stage.command, "--limit")),
    "files": lambda stage: replace(stage, files={"given.json": "[2]"}),
    "variables": lambda stage: replace(stage, variables={"A": "1"}),
    "cpus": lambda stage: replace(stage, resources=Resources(cpus=1)),
    "gpus": lambda stage: replace(stage, resources=Resources(gpus=("0",))),
    "outputs": lambda stage: replace(stage, outputs=("train.jsonl", "deep/note")),
}
SAME: dict[str, Callable[[Stage], Stage]] = {
    "name": lambda stage: replace(stage, name="other"),
    "time limit": lambda stage: replace(stage, time_limit=59.0),
    "memory": lambda stage: replace(stage, resources=Resources(memory_mb=4000)),
}


@pytest.mark.parametrize("change", DIFFERENT)
async def test_what_a_result_depends_on_is_part_of_its_key(site: Site, change: str) -> None:
    assert await site.fresh()
    assert await site.fresh(DIFFERENT[change](STAGE))
    assert not await site.fresh()


@pytest.mark.parametrize("change", SAME)
async def test_what_it_does_not_depend_on_is_not(site: Site, change: str) -> None:
    assert await site.fresh()
    done, _ = await site.run(SAME[change](STAGE))
    assert (done.detail, done.stage) == (FROM_CACHE, SAME[change](STAGE).name)


async def test_any_file_of_the_workspace_counts_declared_or_not(site: Site) -> None:
    assert await site.fresh(workspace=site.workspace(**{"helper.py": "A = 1"}))
    assert await site.fresh(workspace=site.workspace(**{"helper.py": "A = 2"}))
    assert not await site.fresh(workspace=site.workspace(**{"helper.py": "A = 1"}))
    executable = site.workspace(**{"helper.py": "A = 1"})
    (executable / "helper.py").chmod(0o755)
    assert await site.fresh(workspace=executable)


@pytest.mark.parametrize("large", [False, True])
async def test_what_is_in_an_input_counts(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(snapshot, "CONTENT_BYTES", 1)
    first = replace(STAGE, mounts=(mount(tmp_path / "input", "one"),))
    assert await site.fresh(first)
    assert not await site.fresh(first)
    mount(tmp_path / "input", "two")
    assert await site.fresh(first)
    assert await site.fresh(replace(STAGE, mounts=(mount(tmp_path / "elsewhere", "two"),)))


async def test_other_software_and_another_seal_are_other_results(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await site.fresh()
    for options in (LocalOptions(sandbox="none"), LocalOptions(import_roots=())):
        site.environment = CachedEnvironment(LocalEnvironment(options), site.cache)
        assert await site.fresh(), options
        assert not await site.fresh(), options
    monkeypatch.setenv("OMP_SCHEDULE", "dynamic")
    assert await site.fresh()


async def test_an_environment_that_does_not_tell_its_software_is_not_cached(site: Site) -> None:
    class Silent(LocalEnvironment):
        async def identity(self) -> str:
            return ""

    site.environment = CachedEnvironment(Silent(), site.cache)
    assert await site.fresh()
    assert await site.fresh()


def script(text: str, **stage: Any) -> Stage:
    return replace(STAGE, **{"command": ("python", "-c", text), "outputs": (), **stage})


NEVER = {
    "not reusable": replace(STAGE, reusable=False),
    "asks models": replace(STAGE, llm=True),
    "network": replace(STAGE, network=True),
    "failed": script("open('x', 'w'); raise SystemExit(1)"),
    "output missing": script("open('x', 'w')", outputs=("y",)),
    "leaves a link": script("import os; os.symlink('/etc/passwd', 'link')"),
    "leaves a link in a folder": script("import os; os.mkdir('a'); os.symlink('..', 'a/link')"),
    "leaves a named pipe": script("import os; os.mkfifo('pipe')"),
    "leaves a socket": script("import socket; socket.socket(socket.AF_UNIX).bind('socket')"),
    "deletes a file": script("import os; os.unlink('data.txt')"),
    "makes a folder of a file": script("import os; os.unlink('data.txt'); os.mkdir('data.txt')"),
}


@pytest.mark.parametrize("reason", NEVER)
async def test_what_is_never_kept(site: Site, reason: str) -> None:
    assert await site.fresh(NEVER[reason])
    assert site.entries() == []
    assert await site.fresh(NEVER[reason])


async def test_a_workspace_with_a_link_is_not_looked_up(site: Site, tmp_path: Path) -> None:
    assert await site.fresh()
    linked = site.workspace()
    (tmp_path / "outside").write_text("kept")
    (linked / "train.jsonl").symlink_to(tmp_path / "outside")
    done, _ = await site.run(workspace=linked)
    assert done.detail != FROM_CACHE
    assert len(site.entries()) == 1


def test_a_link_that_appears_in_between_is_not_followed(tmp_path: Path) -> None:
    """Whoever can write to the workspace while a hit is unpacked gains nothing by it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "new").write_text("new")
    workspace = Workspace(tmp_path / "workspace")
    workspace.write({"a": "1"})
    (workspace.path / "link").symlink_to(tmp_path / "outside")
    (workspace.path / "file").symlink_to(tmp_path / "outside" / "file")
    for name in ("link/x", "link", "file", "../x", "/x"):
        with pytest.raises(StageRefused):
            workspace.adopt(name, tmp_path / "new")
    for name in ("link", "link/folder", "file", "a"):
        with pytest.raises(StageRefused):
            workspace.adopt(name, None)
    assert list((tmp_path / "outside").iterdir()) == []
    assert text(tmp_path / "new") == "new"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "extended", "foreign", "another key"])
async def test_a_damaged_entry_is_removed_and_the_stage_executed(site: Site, damage: str) -> None:
    assert await site.fresh()
    (entry,) = site.entries()
    content = entry.read_bytes()
    size = len(content)
    spots = {
        "cut": [content[:at] for at in range(0, size, max(1, size // 23))],
        "flipped": [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(20, size, size // 23)],
        "empty": [b""],
        "extended": [content + b"x"],
        "foreign": [b"something else\n" * 100],
    }
    workspace = site.workspace()
    Workspace(workspace).write(STAGE.files)
    before = snapshot.take(workspace)
    if damage == "another key":
        other = entry.with_name("0" * 64 + entry.suffix)
        entry.rename(other)
        assert site.cache.fetch("0" * 64, site.folder / "unpacked") is None
        assert not other.exists()
        return
    for number, damaged in enumerate(spots[damage]):
        overwrite(entry, damaged)
        target = site.folder / f"unpacked-{number}"
        found = site.cache.fetch(entry.stem, target)
        assert found is None
        assert not entry.exists()
    overwrite(entry, spots[damage][-1])
    assert await site.fresh(workspace=site.workspace())
    assert not await site.fresh(workspace=site.workspace())
    assert snapshot.take(workspace) == before


async def test_the_longest_unused_go_first_and_the_bound_holds(tmp_path: Path) -> None:
    site = Site(tmp_path, limit=400_000)
    stages = [script(f"open('x', 'w').write('{n}' * 100_000)") for n in range(5)]
    for number, stage in enumerate(stages):
        assert await site.fresh(stage)
        assert sum(path.stat().st_size for path in site.entries()) <= 400_000
        os.utime(max(site.entries(), key=lambda path: path.stat().st_mtime), (number, number))
        if number >= 2:
            assert not await site.fresh(stages[0]), "what is used stays"
    assert await site.fresh(stages[1])
    assert await site.fresh(script("open('x', 'w').write('y' * 500_000)"))
    assert len(site.entries()) == 3
    (tmp_path / "cache" / ".tmp-left").touch()
    os.utime(tmp_path / "cache" / ".tmp-left", (1, 1))
    assert await site.fresh(script("open('y', 'w')"))
    assert not (tmp_path / "cache" / ".tmp-left").exists()


async def test_a_cache_that_cannot_be_written_costs_nothing_but_time(site: Site) -> None:
    (site.folder / "cache").write_text("a file")
    assert await site.fresh()
    assert await site.fresh()


MANY = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from test_stage_cache import Site, script
from ftagent.environments.local import LocalEnvironment
async def main():
    site = Site(Path(sys.argv[1]), limit=250_000)
    site.count = int(sys.argv[2]) * 1000
    hits = 0
    for round in range(12):
        stage = script(f"import secrets; open('x', 'w').write('{round % 3}' * 100_000 + secrets.token_hex(4))")
        done, workspace = await site.run(stage)
        assert done.ok and (workspace / "x").read_text()[:100_000] == str(round % 3) * 100_000
        hits += done.detail == "from the cache"
    print(hits)
asyncio.run(main())
"""


@pytest.mark.slow
def test_several_processes_share_one_cache(tmp_path: Path) -> None:
    """The bound holds two of three results, so that they are made, used and removed all the time."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    children = [
        subprocess.Popen([sys.executable, "-c", MANY, str(tmp_path), str(number), *paths], stdout=subprocess.PIPE)
        for number in range(3)
    ]
    told = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sum(map(int, told)) > 0
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= 500_000
    assert [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".stage"] == []


async def test_a_full_disk_while_a_hit_is_unpacked_is_said_and_changes_nothing(site: Site, small_disk: Path) -> None:
    stage = script("open('x', 'wb').write(bytes(3_000_000))")
    assert await site.fresh(stage)
    workspace = small_disk / "workspace"
    Workspace(workspace).write({"data.txt": "rows"})
    before = snapshot.take(workspace)
    with pytest.raises(StorageFull, match=str(workspace)):
        await site.run(stage, workspace)
    assert snapshot.take(workspace) == before
    assert names(small_disk) == ["workspace"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class Reusable(NoopScenario):
    def stages(self, candidate: Candidate, purpose: Purpose, split: Split | None = None) -> list[Stage]:
        return [replace(stage, reusable=True) for stage in super().stages(candidate, purpose, split)]


def journal(run: Path) -> list[Any]:
    """All of it but times, what was measured of a command, and the detail that names the cache."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            out = {"seconds", "peak_mb", "detail", "at", "elapsed", "crc32", "left"}
            return {key: plain(below) for key, below in value.items() if key not in out}
        return [plain(below) for below in value] if isinstance(value, list) else value

    return [plain(json.loads(line)) for line in RunFolder(run).journal.read_text().splitlines()]


def test_a_run_with_and_without_the_cache_differ_in_times_and_detail_alone(tmp_path: Path) -> None:
    scenario = noop(tmp_path, stages=1)
    scenario.__class__ = Reusable
    cache = StageCache(tmp_path / "cache", GIB)
    runs = {"without": LocalEnvironment(), "filling": CachedEnvironment(LocalEnvironment(), cache),
            "with": CachedEnvironment(LocalEnvironment(), cache)}  # fmt: skip
    for name, environment in runs.items():
        drive(tmp_path / name, scenario, environment=environment)
    assert journal(tmp_path / "without") == journal(tmp_path / "filling") == journal(tmp_path / "with")
    text_of = {name: RunFolder(tmp_path / name).journal.read_text() for name in runs}
    assert text_of["with"].count(FROM_CACHE) == 3
    assert FROM_CACHE not in text_of["without"] + text_of["filling"]
    assert read_records(RunFolder(tmp_path / "with").journal)


async def test_a_cancelled_lookup_is_over_when_it_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    began, loop = asyncio.Event(), asyncio.get_running_loop()
    over: list[str] = []
    take = snapshot.take

    def slow(path: Path) -> snapshot.Snapshot:
        loop.call_soon_threadsafe(began.set)
        time.sleep(0.3)
        over.append("")
        return take(path)

    monkeypatch.setattr(snapshot, "take", slow)
    task = asyncio.ensure_future(site.run())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert over
