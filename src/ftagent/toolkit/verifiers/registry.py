"""From a verifier's name in a YAML file to the function that rewards outputs."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from ftagent.toolkit.data import Problem
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.verifiers.extract import (
    MAX_CHARACTERS,
    decimal_of,
    last_boxed,
    marked_answer,
    strip_thinking,
    unwrap,
)
from ftagent.toolkit.verifiers.numeric import grade_number
from ftagent.toolkit.verifiers.tasks import PREFIX, build_dataset
from ftagent.toolkit.verifiers.worker import GradingWorker

PLUGINS = "ftagent.verifiers"
"""Entry points of this group are functions (problem, output) → reward."""
BUILT_IN = ("boxed", "exact", "gsm8k", "math", "number")
MATH_SECONDS = 5.0
"""For one symbolic comparison; a later one counts as wrong."""
MAX_FORMULA = 400


@dataclass(frozen=True)
class Verifier:
    """`reward` of an output, a finite number, 1 for what is right. `fault` says why a problem cannot be judged, or
    nothing."""

    name: str
    reward: Callable[[Problem, str], float]
    fault: Callable[[Problem], str]


def load_verifier(name: str) -> Verifier:
    """The verifier `name`: a built-in one, `rg:TASK?key=value&…`, or a plug-in's.

    Raises ToolkitError: unknown (with the nearest name), or a plug-in that cannot be imported.
    """
    if name.startswith(PREFIX):
        return _task_verifier(name)
    if name in BUILT_IN:
        return _built_in(name)
    points = {point.name: point for point in entry_points(group=PLUGINS)}
    if name not in points:
        valid = [*BUILT_IN, *sorted(points)]
        near = difflib.get_close_matches(name, valid, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ToolkitError(f"verifier: unknown {name!r}; {hint}valid: {', '.join(valid)}, {PREFIX}TASK")
    try:
        function = points[name].load()
    except Exception as error:
        raise ToolkitError(f"verifier {name!r} cannot be loaded: {error}") from error
    return Verifier(name, _guarded(name, function), lambda problem: "")


def _built_in(name: str) -> Verifier:
    worker = GradingWorker(seconds=MATH_SECONDS, most_timeouts=None)

    def number(problem: Problem, output: str) -> float:
        return grade_number(output, reference_of(problem), worker).value

    def exact(problem: Problem, output: str) -> float:
        return float(strip_thinking(output) == problem.answer.strip())

    def boxed(problem: Problem, output: str) -> float:
        found = last_boxed(strip_thinking(output[-MAX_CHARACTERS:]))
        return float(found is not None and _same_text(found, reference_of(problem)))

    def symbolic(problem: Problem, output: str) -> float:
        text = strip_thinking(output[-MAX_CHARACTERS:])
        found = marked_answer(text) or (text.splitlines() or [""])[-1].strip()
        reference = reference_of(problem)
        if not found or len(found) > MAX_FORMULA:
            return 0.0
        return float(_same_text(found, reference) or worker.math_equal(unwrap(found), unwrap(reference)))

    if name in ("number", "gsm8k"):
        return Verifier(name, number, _no_number)
    return Verifier(name, {"exact": exact, "boxed": boxed, "math": symbolic}[name], _no_answer)


def reference_of(problem: Problem) -> str:
    """The final answer of a problem: what follows `####` where its answer is a worked solution as GSM8K's are."""
    return problem.answer.rsplit("####", 1)[-1].strip()


def _no_answer(problem: Problem) -> str:
    return "" if reference_of(problem) else "has no answer"


def _no_number(problem: Problem) -> str:
    found = reference_of(problem)
    return "" if decimal_of(found) is not None else f"the answer {found[:60]!r} is not a number"


def _same_text(found: str, reference: str) -> bool:
    one, other = decimal_of(unwrap(found)), decimal_of(unwrap(reference))
    if one is not None and other is not None:
        return one == other
    return " ".join(unwrap(found).split()) == " ".join(unwrap(reference).split())


def _task_verifier(name: str) -> Verifier:
    from ftagent.toolkit.verifiers.procedural import TaskGrader

    build_dataset(name, seed=0)
    grader = TaskGrader(name, GradingWorker(seconds=MATH_SECONDS, most_timeouts=None))

    def reward(problem: Problem, output: str) -> float:
        entry = _entry(problem)
        # A wrong number may contain the right one ("17" for "7"), which the task's rule would reward in part.
        if decimal_of(problem.answer) is not None:
            return grader.grade(output, problem.answer, entry).value
        return grader.best_score(output, entry)

    def fault(problem: Problem) -> str:
        if not problem.answer or reward(problem, problem.answer) >= 1.0:
            return ""
        missing = "" if "metadata" in problem.extra else '; the row has no key "metadata", which the task may need'
        return f"{name} does not accept the row's own answer {problem.answer[:60]!r}{missing}"

    return Verifier(name, reward, fault)


def _entry(problem: Problem) -> dict[str, Any]:
    """What reasoning-gym generated: the row's question, answer and metadata (JSON text in a table's column)."""
    metadata = problem.extra.get("metadata") or {}
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata)
        except ValueError:
            metadata = {}
    question = next((message["content"] for message in reversed(problem.prompt) if message["role"] == "user"), "")
    return {
        "question": question,
        "answer": problem.answer or None,
        "metadata": metadata if isinstance(metadata, Mapping) else {},
    }


def _guarded(name: str, function: Any) -> Callable[[Problem, str], float]:
    def reward(problem: Problem, output: str) -> float:
        place = f"verifier {name!r} at row {problem.line}"
        try:
            value = float(function(problem, output))
        except Exception as error:
            raise ToolkitError(f"{place}: {type(error).__name__}: {error}") from error
        if not math.isfinite(value):
            raise ToolkitError(f"{place}: gives {value}; a reward is a finite number")
        return value

    return reward
