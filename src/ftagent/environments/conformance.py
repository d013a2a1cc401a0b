"""What every environment must do, as checks that run against the real thing.

`python -m ftagent.environments.conformance local` prints one line a check and exits 1 if one failed. A plug-in calls
`run_suite` with a factory of its own environment. Each check names the property and the row of the reliability table.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftagent.core.errors import FtagentError
from ftagent.core.protocols import Environment
from ftagent.environments.conformance_bench import Bench, Check, CheckFailed, NotApplicable
from ftagent.environments.conformance_checks import COMMAND_CHECKS
from ftagent.environments.conformance_files import FILE_CHECKS
from ftagent.environments.conformance_hostile import HOSTILE_CHECKS

Factory = Callable[[], Environment]
Status = Literal["pass", "fail", "not applicable"]


@dataclass(frozen=True)
class Result:
    check: Check
    status: Status
    reason: str
    seconds: float


def all_checks() -> tuple[Check, ...]:
    """Every check, in the order in which it runs."""
    return COMMAND_CHECKS + FILE_CHECKS + HOSTILE_CHECKS


async def run_check(check: Check, factory: Factory, folder: Path) -> Result:
    """Run one check in `folder`, which must not exist."""
    began = time.monotonic()
    status: Status = "pass"
    reason = ""
    environment = factory()
    try:
        await environment.prepare("debug")
        bench = Bench(environment, folder)
        bench.workspace.mkdir(parents=True)
        await check.run(bench)
    except NotApplicable as error:
        status, reason = "not applicable", str(error)
    except CheckFailed as error:
        status, reason = "fail", str(error)
    except Exception as error:  # noqa: BLE001 - whatever an environment raises is a finding about it
        status, reason = "fail", f"{type(error).__name__}: {error}"
    finally:
        await environment.close()
    return Result(check, status, reason, time.monotonic() - began)


async def run_suite(factory: Factory, folder: Path) -> list[Result]:
    """Run all checks one after the other, each in a folder of its own below `folder`."""
    return [await run_check(check, factory, folder / check.name) for check in all_checks()]


def main(arguments: list[str]) -> int:
    """Run the suite against the environment that is named; the exit code. `--record FILE` keeps every status."""
    from ftagent.environments import registry
    from ftagent.environments.local import LocalEnvironment, LocalOptions

    name = arguments[0] if arguments else "auto"
    try:
        environment = LocalEnvironment(LocalOptions(sandbox="none")) if name == "local-plain" else registry.create(name)
    except FtagentError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    folder = Path(tempfile.mkdtemp(prefix="ftagent-conformance-"))
    try:
        results = asyncio.run(run_suite(lambda: environment, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for result in results:
        rows = ",".join(map(str, result.check.rows)) or "-"
        line = f"{result.status:14} {result.check.name:24} row {rows:6} {result.seconds:6.2f} s"
        sys.stdout.write(f"{line}  {result.reason or result.check.property}\n")
    failed = sum(result.status == "fail" for result in results)
    sys.stdout.write(f"{environment.describe()}\n{len(results) - failed} of {len(results)} without failure\n")
    if "--record" in arguments:
        record(name, results, Path(arguments[arguments.index("--record") + 1]))
    return 1 if failed else 0


def record(name: str, results: list[Result], path: Path) -> None:
    """Write the status of every check, for the table of `docs/security.md`. Raises OSError."""
    checks = {result.check.name: result.status for result in results}
    path.write_text(json.dumps({"environment": name, "checks": checks}, indent=1) + "\n")


def recorded(path: Path) -> dict[str, Status]:
    """Check → status, as `record` wrote them. Raises OSError."""
    checks: dict[str, Status] = json.loads(path.read_text())["checks"]
    return checks


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
