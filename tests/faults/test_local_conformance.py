"""Environment `local` passes the conformance suite in each of its ways to work (rows 8-15, 17-20, 31)."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import ftagent.environments.conformance as suite
from ftagent.environments import sandbox
from ftagent.environments.local import LocalEnvironment, LocalOptions

WAYS = {
    "sandboxed": LocalOptions(sandbox="bubblewrap"),
    "sandboxed-polling": LocalOptions(sandbox="bubblewrap", control_groups=False),
    "plain": LocalOptions(sandbox="none"),
    "plain-polling": LocalOptions(sandbox="none", control_groups=False),
}
RECORDS = Path(__file__).parents[2] / "docs" / "conformance"
RECORD_NAMES = {"sandboxed": "local", "plain": "local-plain"}
CASES = [
    pytest.param(way, check, id=f"{way}-{check.name}")
    for way in WAYS
    for check in suite.all_checks()
    if "polling" not in way or set(check.rows) & {8, 9, 11, 12}
]


@pytest.mark.parametrize(("way", "check"), CASES)
async def test_check(way: str, check: suite.Check, tmp_path: Path) -> None:
    if way.startswith("sandboxed") and (why := sandbox.probe()):
        pytest.skip(why)
    result = await suite.run_check(check, lambda: LocalEnvironment(WAYS[way]), tmp_path / "check")
    if "polling" not in way:
        assert result.status == suite.recorded(RECORDS / f"{RECORD_NAMES[way]}.json")[check.name], result.reason
    if result.status == "not applicable":
        assert way.startswith("plain"), result.reason
        pytest.skip(result.reason)
    assert result.status == "pass", result.reason


def run_python(arguments: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_a_broken_environment_does_not_pass(tmp_path: Path) -> None:
    """The suite can fail: an environment without its kills and limits is found out."""

    class Careless(LocalEnvironment):
        async def execute(self, stage, workspace, on_line, log):  # type: ignore[no-untyped-def]
            done = run_python(stage.command[1:], workspace)
            log.write_text(done.stdout)
            list(map(on_line, done.stdout.splitlines()))
            return suite.Execution(stage.name, "ok" if done.returncode == 0 else "failed", 0.1, done.returncode)

    wanted = {"signals", "variables", "peak_memory", "input_missing", "output_link", "outputs_missing", "stage_files"}
    checks = [check for check in suite.all_checks() if check.name in wanted]
    results = [
        asyncio.run(suite.run_check(check, lambda: Careless(LocalOptions(sandbox="none")), tmp_path / check.name))
        for check in checks
    ]
    assert {result.check.name for result in results if result.status == "fail"} == wanted


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, with the package in it."""
    folder = Path(tempfile.mkdtemp(prefix="ftagent-test-"))
    try:
        shutil.copytree(sandbox.package_folder(), folder / "src" / "ftagent", ignore=shutil.ignore_patterns("*.pyc"))
        (folder / "home").mkdir()
        subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
        os.chown(folder / "home", sandbox.NOBODY, sandbox.NOBODY)
        yield folder
    finally:
        shutil.rmtree(folder)


AS_NOBODY = """
import asyncio, pathlib, sys, tempfile
from ftagent.environments import conformance
from ftagent.environments.local import LocalEnvironment, LocalOptions
wanted = {"time_limit_tree", "leftovers", "fork_bomb", "out_of_memory", "no_network", "answers", "inputs_read_only"}
async def main():
    for check in conformance.all_checks():
        if check.name in wanted:
            with tempfile.TemporaryDirectory() as folder:
                environment = LocalEnvironment(LocalOptions(sandbox=sys.argv[1]))
                result = await conformance.run_check(check, lambda: environment, pathlib.Path(folder, "c"))
            print(result.status, check.name, result.reason)
asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@pytest.mark.parametrize("kind", ["bubblewrap", "none"])
def test_as_a_user_without_rights(open_folder: Path, kind: str) -> None:
    """Not root, no control group: RLIMIT_NPROC and polling hold the limits; the sandbox works all the same."""
    if kind == "bubblewrap" and (why := sandbox.probe()):
        pytest.skip(why)
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(open_folder / "src"), "HOME": str(open_folder / "home")}
    for python in (str(Path(sys.executable).resolve()), "/usr/bin/python3"):
        try:
            done = subprocess.run(
                [python, "-B", "-c", AS_NOBODY, kind], env=variables, cwd=open_folder, capture_output=True, text=True,
                user=sandbox.NOBODY, group=sandbox.NOBODY, extra_groups=[], check=False, timeout=120,
            )  # fmt: skip
        except OSError:
            continue
        break
    else:
        pytest.skip("no Python 3.11 that other users can execute")
    assert done.returncode == 0, done.stderr
    statuses = [line.split(" ", 1) for line in done.stdout.replace("not applicable", "not-applicable").splitlines()]
    assert len(statuses) == 7, done.stdout
    allowed = {"pass"} if kind == "bubblewrap" else {"pass", "not-applicable"}
    assert {status for status, _ in statuses} <= allowed, done.stdout


THREE = 0b111
"""HUP, INT and QUIT. Signals of the C library itself may be ignored wherever we come from."""
DEAF = """
import asyncio, pathlib, sys, tempfile
from ftagent.core.types import Stage
from ftagent.environments.local import LocalEnvironment, LocalOptions
async def main():
    folder = pathlib.Path(tempfile.mkdtemp())
    stage = Stage("look", "debug", ("sh", "-c", "grep SigIgn /proc/self/status"), time_limit=30.0)
    await LocalEnvironment(LocalOptions(sandbox=sys.argv[1])).execute(stage, folder, print, folder / "log")
    print(next(line for line in open("/proc/self/status") if line.startswith("SigCgt")))
asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["bubblewrap", "none"])
def test_signals_that_we_were_told_to_ignore_end_commands_all_the_same(kind: str) -> None:
    """`nohup ftagent run &` ignores three of them."""
    if kind == "bubblewrap" and (why := sandbox.probe()):
        pytest.skip(why)
    deaf = "trap '' HUP INT QUIT; exec \"$@\""
    command = ["sh", "-c", deaf, "sh", sys.executable, "-c", DEAF, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    ignored, caught = (int(line.split()[1], 16) for line in done.stdout.split("\n")[:2])
    assert ignored & THREE == 0
    assert caught & THREE == THREE
