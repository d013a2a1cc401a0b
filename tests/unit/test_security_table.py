"""The table of `docs/security.md` says what the conformance suite found, check by check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ftagent.environments.conformance import all_checks

DOCS = Path(__file__).parents[2] / "docs"
RECORDS = sorted((DOCS / "conformance").glob("*.json"))


def test_the_table_is_current() -> None:
    done = subprocess.run([sys.executable, str(DOCS / "security_table.py"), "--check"], check=False)
    assert done.returncode == 0, "run `python docs/security_table.py`"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_holds_every_check_and_no_failure(path: Path) -> None:
    checks = json.loads(path.read_text())["checks"]
    assert set(checks) == {check.name for check in all_checks()}
    assert "fail" not in checks.values()


def test_the_environments_that_this_version_has_are_recorded() -> None:
    assert {path.stem for path in RECORDS} >= {"local", "local-plain", "conda"}
