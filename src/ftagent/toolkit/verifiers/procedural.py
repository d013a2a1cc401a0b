"""Grading by the rule of a reasoning-gym task (Apache-2.0): its own `score_answer` on a leniently extracted answer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from ftagent.toolkit.verifiers.extract import decimal_of, extract_number, extract_texts
from ftagent.toolkit.verifiers.grade import Grade
from ftagent.toolkit.verifiers.guard import GUARDED, SYMBOLIC, harmless
from ftagent.toolkit.verifiers.numeric import number_category
from ftagent.toolkit.verifiers.tasks import build_dataset, split_name
from ftagent.toolkit.verifiers.worker import GradingWorker


class TaskGrader:
    """Grades outputs for the task that `name` (`rg:NAME?key=value&…`) names. An entry is what the task generates:
    {"question", "answer", "metadata"}."""

    def __init__(self, name: str, worker: GradingWorker) -> None:
        self.name = name
        self.task = split_name(name)[0]
        self._worker = worker

    def grade(self, output: str, reference: str, entry: Mapping[str, Any]) -> Grade:
        """1 where the task's rule gives 1 to the answer in `output`, else 0. Never raises for what `output` is."""
        if not output.strip():
            return Grade(0.0, valid=False, category="empty")
        expected = decimal_of(reference)
        if expected is not None:
            stated = extract_number(output)
            value = decimal_of(stated) if stated is not None else None
            if stated is None or value is None:
                return Grade(0.0, valid=False, category="no_answer")
            right = self.score(stated, entry) >= 1.0
            return Grade(float(right), category="" if right else number_category(value, expected) or "wrong_form")
        best = self.best_score(output, entry)
        if best >= 1.0:
            return Grade(1.0)
        return Grade(0.0, category="partly_right" if best > 0.05 else "wrong_text")

    def best_score(self, output: str, entry: Mapping[str, Any]) -> float:
        """The task's score of the best reading of an output whose answer is no number."""
        best = 0.0
        for reading in extract_texts(output):
            best = max(best, self.score(reading, entry))
            if best >= 1.0:
                break
        return best

    def score(self, answer: str, entry: Mapping[str, Any]) -> float:
        """The task's own score of `answer`; 0 where it refuses it."""
        task = entry["metadata"].get("source_dataset", self.task)
        if task in GUARDED and not harmless(task, answer):
            return 0.0
        if task in SYMBOLIC:
            return self._worker.task_score(self.name, answer, entry)
        try:
            return float(self._dataset.score_answer(answer=answer, entry=entry))
        except Exception:  # noqa: BLE001 - third-party verifiers raise anything on arbitrary text: not right then
            return 0.0

    @cached_property
    def _dataset(self) -> Any:
        return build_dataset(self.name, seed=0)
