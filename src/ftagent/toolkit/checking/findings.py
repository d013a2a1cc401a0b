"""What a check found, in one line each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "fault"]
SHOWN = 3
"""Names told in one line; the others are counted."""


@dataclass(frozen=True)
class Finding:
    """`text` says what is there, `right` what would be right; "" where all is well."""

    check: str
    status: Status
    text: str
    right: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def ok(check: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(check, "ok", text)


def warning(check: str, text: str, right: str) -> Finding:
    """Works, though perhaps not as somebody wanted."""
    return Finding(check, "warning", text, right)


def fault(check: str, text: str, right: str) -> Finding:
    """Does not work, or not as it should."""
    return Finding(check, "fault", text, right)


def faults(findings: Iterable[Finding]) -> list[Finding]:
    """Only those that are faults."""
    return [finding for finding in findings if finding.status == "fault"]


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def one_line(error: BaseException) -> str:
    """The text of an error of a library, cut to a line's length."""
    return " ".join(str(error).split())[:300] or type(error).__name__
