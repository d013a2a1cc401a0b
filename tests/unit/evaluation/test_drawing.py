"""Procedural items are the same in every process, whatever its hash seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ftagent.core.errors import RequestError
from ftagent.evaluation.drawing import DrawingWorker

SCRIPT = """
from ftagent.evaluation.procedural import ProceduralBenchmark
benchmark = ProceduralBenchmark("rg:isomorphic_strings")
print([item.question for item in benchmark.items("validation", 5)], benchmark.training_rows(5))
"""


def test_items_do_not_follow_the_hash_seed_of_the_process() -> None:
    seen = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(seen) == 1


def test_more_of_a_split_begins_with_what_was_drawn_before() -> None:
    worker = DrawingWorker("rg:isomorphic_strings")
    few, more = worker.draw("test", 3), worker.draw("test", 8)
    assert [entry["question"] for entry in more[:3]] == [entry["question"] for entry in few]
    assert len(more) == 8


def test_an_error_of_the_child_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = DrawingWorker("rg:isomorphic_strings?nonsense=1")
    with pytest.raises(RequestError, match="isomorphic_strings"):
        worker.draw("test", 3)
