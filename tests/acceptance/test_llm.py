"""The main job at full length: what `make demo` claims, and GSM8K as a user would type it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.model, pytest.mark.timeout(7200)]
SUMS = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2"


def test_the_demo_improves_a_real_model_beyond_doubt(prove: Callable[..., dict[str, Any]]) -> None:
    document = prove(
        "demo", "--scenario", "llm", "--agent", "search", "--base-model", "smollm2-135m", "--benchmark", SUMS,
        "--loop-n", "3", "--limit", "150", "-o", "train_tokens=20000",
    )  # fmt: skip
    assert document["best"]["verdict"] == "improved"
    assert document["loops"] == 3
    for split in ("validation", "test"):
        baseline, best = document["baseline"][split], document["best"][split]
        assert best["n"] >= 100
        assert baseline["ci95"][1] < best["ci95"][0], f"the {split} intervals overlap"


@pytest.mark.data
def test_gsm8k_runs_as_typed(prove: Callable[..., dict[str, Any]]) -> None:
    document = prove(
        "gsm8k", "--scenario", "llm", "--base-model", "smollm2-135m", "--benchmark", "gsm8k", "--loop-n", "1",
        "--limit", "50",
    )  # fmt: skip
    assert document["status"] == "completed"
    assert document["baseline"]["test"]["n"] == 50
    assert document["best"]["test"] is not None
