"""No secret of the settings reaches the terminal: notes, log lines, tracebacks, the error at the end."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from loguru import logger

from ftagent.app import Result
from ftagent.cli.common import Common
from ftagent.cli.watching import watch
from ftagent.core.observer import Observer
from ftagent.core.options import Gate
from ftagent.settings import load

CANARY = "sk-canary-0123456789"


def test_a_session_prints_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load(None, {"OPENAI_API_KEY": CANARY}, tmp_path)
    encoded = base64.b64encode(CANARY.encode()).decode()

    def session(observer: Observer, gate: Gate | None) -> Result:
        assert gate is None  # nobody can be asked here
        observer.note(f"a note with {CANARY}")
        observer.line(0, "train", f"a line with {CANARY}")
        logger.info(f"a log line with {encoded}")
        try:
            raise ValueError(f"an exception with {CANARY}")
        except ValueError:
            logger.exception("it failed")
        return Result(tmp_path, 1, {"status": "failed"}, f"the provider quotes {CANARY}")

    assert watch(Common(debug=True), settings, False, session) == 1
    printed = "".join(capsys.readouterr())
    for said in ("a note with", "a log line with", "an exception with", "the provider quotes"):
        assert f"{said} [redacted]" in printed
    assert "canary" not in printed
    assert encoded not in printed
