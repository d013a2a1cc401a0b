"""Environment `conda` with a real conda: the conformance suite, and how environments are made (rows 8-20, 31)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ftagent.environments.conformance as suite
from ftagent.core.errors import EnvironmentUnavailable, RequestError, StorageFull
from ftagent.core.types import Execution, Stage
from ftagent.environments import conda_program, sandbox
from ftagent.environments.conda import CondaEnvironment, CondaOptions
from ftagent.environments.conda_store import MARKER, Spec
from ftagent.environments.local import LocalOptions

pytestmark = [pytest.mark.conda, pytest.mark.timeout(600)]
RECORD = Path(__file__).parents[2] / "docs" / "conformance" / "conda.json"
CHANNEL = os.environ.get("FTAGENT_TEST_CONDA_CHANNEL", "conda-forge")


def spec(folder: Path, *packages: str, comment: str = "", channel: str = CHANNEL) -> Path:
    path = folder / "spec.yaml"
    lines = "".join(f"  - {package}\n" for package in packages or ("python=3.11",))
    path.write_text(f"# {comment}\nchannels: [{channel}, nodefaults]\ndependencies:\n{lines}")
    return path


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """conda keeps a list of all environments in the home folder; these do not belong on the user's."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CondaOptions:
    """An environment that is there."""
    folder = tmp_path_factory.mktemp("made")
    options = CondaOptions(environment=str(spec(folder)), folder=folder / "conda")
    assert asyncio.run(CondaEnvironment(options).build(print))
    return options


def read(path: str) -> str:
    return Path(path).read_text()


def unsealed(options: CondaOptions) -> CondaOptions:
    return CondaOptions(environment=options.environment, folder=options.folder, local=LocalOptions(sandbox="none"))


async def python(environment: CondaEnvironment, folder: Path, script: str) -> tuple[Execution, list[str]]:
    lines: list[str] = []
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    stage = Stage("test", "debug", ("python", "-P", "-c", script), time_limit=60.0)
    return await environment.execute(stage, workspace, lines.append, folder / "log"), lines


@pytest.mark.parametrize("check", suite.all_checks(), ids=lambda check: check.name)
async def test_check(made: CondaOptions, check: suite.Check, tmp_path: Path) -> None:
    if why := sandbox.probe():
        pytest.skip(why)
    result = await suite.run_check(check, lambda: CondaEnvironment(made), tmp_path / "check")
    assert result.status == suite.recorded(RECORD)[check.name], result.reason
    assert result.status == "pass", result.reason


@pytest.mark.parametrize("sealed", [True, False])
async def test_commands_find_this_package_and_nothing_of_the_host(
    made: CondaOptions, sealed: bool, tmp_path: Path
) -> None:
    environment = CondaEnvironment(made if sealed else unsealed(made))
    if sealed and (why := sandbox.probe()):
        pytest.skip(why)
    assert environment.sealed == sealed
    script = """
import importlib.util, os, sys, ftagent.toolkit
print(sys.prefix == os.environ["CONDA_PREFIX"], sys.prefix, ftagent.toolkit.__name__)
print([name for name in ("torch", "pytest", "pydantic") if importlib.util.find_spec(name)])
"""
    done, lines = await python(environment, tmp_path, script)
    assert (done.end, lines) == ("ok", [f"True {environment.prefix} ftagent.toolkit", "[]"])


async def test_packages_of_the_host_can_be_lent(made: CondaOptions, tmp_path: Path) -> None:
    site = Path(pytest.__file__).parents[1]
    options = CondaOptions(environment=made.environment, folder=made.folder, packages=(site,))
    done, lines = await python(CondaEnvironment(options), tmp_path, "import yaml, sys; print(yaml.safe_load('[1]'))")
    assert (done.end, lines) == ("ok", ["[1]"])


async def test_what_activating_would_set_is_set(made: CondaOptions, tmp_path: Path) -> None:
    environment = CondaEnvironment(made)
    scripts = environment.prefix / "etc/conda/activate.d"
    scripts.mkdir(parents=True)
    try:
        (scripts / "a.sh").write_text('export A_DATA="$CONDA_PREFIX/share\nsecond line"; echo noise\n')
        done, lines = await python(environment, tmp_path, "import os; print(repr(os.environ['A_DATA']))")
        assert (done.end, lines) == ("ok", [repr(f"{environment.prefix}/share\nsecond line")])
        (scripts / "a.sh").write_text("echo broken >&2; exit 3\n")
        with pytest.raises(EnvironmentUnavailable, match=r"cannot be activated: broken$"):
            await CondaEnvironment(made).prepare("debug")
    finally:
        (scripts / "a.sh").unlink()


MAKER = """
import asyncio, sys
from pathlib import Path
from ftagent.environments.conda import CondaEnvironment, CondaOptions
environment = CondaEnvironment(CondaOptions(environment=sys.argv[1], folder=Path(sys.argv[2])))
made = asyncio.run(environment.build(lambda line: print(line, flush=True)))
print("made", made)
"""


def maker(path: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAKER, str(path), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def conda_processes(prefix: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"--prefix {prefix}" in command and entry.parent.name != str(os.getpid()):
            found.append(command)
    return found


def test_a_creation_that_was_killed_is_found_and_done_again_by_one_of_two(tmp_path: Path) -> None:
    path, folder = spec(tmp_path, comment="killed"), tmp_path / "conda"
    prefix = CondaEnvironment(CondaOptions(environment=str(path), folder=folder)).prefix
    with maker(path, folder) as first:
        deadline = time.monotonic() + 60
        while not (prefix / "conda-meta").is_dir():
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while left := conda_processes(prefix):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert prefix.exists()
    assert not (prefix / MARKER).exists()

    makers = [maker(path, folder), maker(path, folder)]
    told = [process.communicate(timeout=120)[0].splitlines() for process in makers]
    assert sorted(lines[-1] for lines in told) == ["made False", "made True"]
    (builder,) = (lines for lines in told if lines[-1] == "made True")
    (waiter,) = (lines for lines in told if lines[-1] == "made False")
    assert any("half made" in line for line in builder)
    assert waiter[:-1] == [f"waiting for another process that makes the conda environment {prefix.name}"]
    assert CondaEnvironment(CondaOptions(environment=str(path), folder=folder)).ready()


async def test_a_changed_specification_makes_another_environment(made: CondaOptions, tmp_path: Path) -> None:
    lines: list[str] = []
    options = CondaOptions(environment=str(spec(tmp_path, comment="changed")), folder=made.folder)
    environment = CondaEnvironment(options)
    await environment.prepare("debug")
    assert await environment.build(lines.append) is False
    assert lines == []
    before = CondaEnvironment(made)
    assert environment.prefix != before.prefix
    assert environment.ready()
    assert before.ready()
    # What was installed is written beside it, as a specification of its own.
    record = environment.prefix.with_name(f"{environment.prefix.name}.lock.yaml")
    assert "python=3.11" in record.read_text()
    assert Spec.read(record).digest
    # A folder that was moved holds scripts that lead nowhere.
    moved = tmp_path / "moved"
    environment.prefix.parent.rename(moved)
    try:
        assert not CondaEnvironment(CondaOptions(environment=options.environment, folder=moved)).ready()
    finally:
        moved.rename(made.folder)
    assert before.ready()


@pytest.fixture
def exact(made: CondaOptions, tmp_path: Path) -> Path:
    program = conda_program.find(os.environ)
    command = [str(program.path), "list", "--explicit", "--md5", "--prefix", str(CondaEnvironment(made).prefix)]
    listed = tmp_path / "exact.txt"
    listed.write_text(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return listed


async def test_an_exact_list_of_packages_is_a_specification(exact: Path, tmp_path: Path) -> None:
    environment = CondaEnvironment(CondaOptions(environment=str(exact), folder=tmp_path / "conda"))
    done, lines = await python(environment, tmp_path, "import sys; print(sys.version_info[:2])")
    assert (done.end, lines) == ("ok", ["(3, 11)"])


@pytest.mark.parametrize(
    ("packages", "channel", "why"),
    [
        (("python=3.11", "no-such-package"), CHANNEL, "no-such-package"),
        (("python=3.11",), "file:///no/such/channel", "no/such/channel"),
    ],
)
async def test_why_conda_failed_is_said_in_one_line(
    tmp_path: Path, packages: tuple[str, ...], channel: str, why: str
) -> None:
    path = spec(tmp_path, *packages, channel=channel)
    environment = CondaEnvironment(CondaOptions(environment=str(path), folder=tmp_path / "conda"))
    with pytest.raises(EnvironmentUnavailable, match=why) as caught:
        await environment.prepare("debug")
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert why in read(text.rpartition("its log is ")[2])
    assert not environment.prefix.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_is_no_fault_of_the_specification(small_disk: Path, tmp_path: Path) -> None:
    environment = CondaEnvironment(CondaOptions(environment=str(spec(tmp_path)), folder=small_disk / "conda"))
    with pytest.raises(StorageFull, match="no space left for the conda environment"):
        await environment.prepare("debug")
    assert not environment.prefix.exists()


async def test_an_environment_of_the_user_is_used_as_it_is(
    made: CondaOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name and by folder; its packages may change, which caches must see."""
    prefix = CondaEnvironment(made).prefix
    monkeypatch.setenv("CONDA_ENVS_DIRS", str(prefix.parent))
    for named in (prefix.name, str(prefix)):
        environment = CondaEnvironment(CondaOptions(environment=named, folder=tmp_path / "conda"))
        assert environment.prefix == prefix
        assert "yours" in environment.describe()
        assert await environment.build(print) is False
        done, lines = await python(environment, tmp_path, "import sys; print(sys.prefix)")
        assert (done.end, lines) == ("ok", [str(prefix)])
    before = await environment.identity()
    (module := next((prefix / "lib").glob("python3.*/site-packages")) / "new.py").touch()
    try:
        assert await environment.identity() != before
    finally:
        module.unlink()
    with pytest.raises(RequestError, match=rf"FTAGENT_CONDA_ENV=kaggle: .* there: .*{prefix.name}"):
        CondaEnvironment(CondaOptions(environment="kaggle", folder=tmp_path))
    with pytest.raises(RequestError, match="FTAGENT_CONDA_ENV=/no/such: is no conda environment"):
        CondaEnvironment(CondaOptions(environment="/no/such", folder=tmp_path))


async def test_an_environment_that_goes_away_is_not_the_codes_fault(tmp_path: Path) -> None:
    prefix = tmp_path / "env"
    (prefix / "conda-meta").mkdir(parents=True)
    environment = CondaEnvironment(CondaOptions(environment=str(prefix), folder=tmp_path / "conda"))
    with pytest.raises(EnvironmentUnavailable, match="has no bin/python any more"):
        await python(environment, tmp_path, "print()")
