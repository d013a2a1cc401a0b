"""Grading of answers that are numbers."""

from __future__ import annotations

import re
from decimal import Decimal

from ftagent.toolkit.verifiers.extract import (
    MAX_CHARACTERS,
    decimal_of,
    extract_number,
    is_plain,
    marked_answer,
    strip_thinking,
)
from ftagent.toolkit.verifiers.grade import Grade
from ftagent.toolkit.verifiers.worker import GradingWorker

HEDGE = re.compile(r"\\pm|\\mp|±|∓|\\lor|\\vee|\bor\b")
"""Says two values, one of which would do for whatever is right."""


def grade_number(output: str, reference: str, worker: GradingWorker) -> Grade:
    """1 for the same number. Plain numbers are compared exactly, formulas by math-verify in `worker`."""
    expected = decimal_of(reference)
    if expected is None:
        raise ValueError(f"the reference {reference!r} is not a number")
    if not output.strip():
        return Grade(0.0, valid=False, category="empty")
    marked = marked_answer(strip_thinking(output[-MAX_CHARACTERS:]))
    if marked and HEDGE.search(marked):
        return Grade(0.0, category="several_values")
    if marked and not is_plain(marked) and "=" not in marked and len(marked) <= 200:
        equal = worker.math_equal(marked, reference)
        return Grade(float(equal), valid=True, category="" if equal else "wrong_formula")
    stated = extract_number(output)
    value = decimal_of(stated) if stated is not None else None
    if value is None:
        return Grade(0.0, valid=False, category="no_answer")
    return Grade(float(value == expected), category=number_category(value, expected))


def number_category(value: Decimal, expected: Decimal) -> str:
    """How a number is wrong; empty where it is right."""
    if value == expected:
        return ""
    if value == -expected:
        return "wrong_sign"
    if abs(value - expected) == 1:
        return "off_by_one"
    digits, due = len(str(abs(int(value)))), len(str(abs(int(expected))))
    if digits != due:
        return "wrong_number_of_digits"
    if abs(value - expected) <= abs(expected) / 10:
        return "close"
    return "wrong_number"
