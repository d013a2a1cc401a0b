"""Which answers may reach verifiers that evaluate them as Python.

Some verifiers of reasoning-gym call `eval` or sympy's `parse_expr` (which evaluates too) on the answer. An
answer is untrusted: those verifiers see only literals, or formulas of numbers, variables and elementary
functions.
"""

from __future__ import annotations

import re

LITERAL = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
"""Tasks whose verifier calls `eval` on an answer."""
SYMBOLIC = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
"""Tasks whose verifier calls sympy on an answer: guarded, and run in a process with a time limit."""
GUARDED = LITERAL | SYMBOLIC
NAMES = frozenset(
    {"Abs", "acos", "asin", "atan", "cos", "cosh", "cot", "csc", "exp", "ln", "log", "pi", "sec", "sin", "sinh",
     "sqrt", "tan", "tanh"}
)  # fmt: skip
MAX_FORMULA = 400
MAX_LITERAL = 4000


def harmless(task: str, answer: str) -> bool:
    """Whether `answer` may be evaluated by the verifier of a guarded task."""
    return _is_formula(answer) if task in SYMBOLIC else _is_literal_or_word(answer)


def _is_literal_or_word(answer: str) -> bool:
    # Without calls, comprehensions and multiplication, evaluation has no effect and ends at once.
    return bool(
        len(answer) <= MAX_LITERAL
        and re.fullmatch(r"[\w\s,\[\]'\".\-]*", answer)
        and not re.search(r"__|\b(?:for|lambda|yield|await)\b", answer)
    )


def _is_formula(answer: str) -> bool:
    if len(answer) > MAX_FORMULA or not re.fullmatch(r"[0-9A-Za-z+\-*/^().\s]*", answer):
        return False
    if re.search(r"\.\s*[A-Za-z]|[A-Za-z)]\s*\.|\d{13}|\d[eE][+-]?\d{3}", answer):
        return False
    words = re.findall(r"[A-Za-z]+", answer)
    return all(word in NAMES or len(word) == 1 for word in words)
