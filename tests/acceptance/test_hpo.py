"""Tuning as a user would type it: MiniLM on STS-B, all of dev and test."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.data, pytest.mark.timeout(3600)]
LONGEST = 600.0
"""Seconds on two cores that do nothing else."""


def test_minilm_is_tuned_on_stsb(prove: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    document = prove("hpo_stsb", "--scenario", "hpo", "--auto", "--loop-n", "9")
    assert document["status"] == "completed"
    assert document["loops"] == 9
    assert document["baseline"]["validation"]["n"] == 1500
    assert document["best"]["validation"]["value"] > document["baseline"]["validation"]["value"]
    low, high = document["best"]["test"]["ci95"]
    assert low < document["best"]["test"]["value"] < high, "reported whichever way it goes"
    assert document["seconds"] <= LONGEST
    found = score_of(tmp_path / document["run"] / "best_overall_model", "test")
    assert found == pytest.approx(document["best"]["test"]["value"], abs=2e-4), "the kept model gives its score"


def score_of(model: Path, split: str) -> float:
    """Spearman of a model as anyone would measure it: with sentence-transformers and SciPy."""
    from scipy.stats import spearmanr
    from sentence_transformers import SentenceTransformer

    mirror = Path(os.environ["FTAGENT_DATA_MIRROR"])
    assert json.loads((mirror / "mirror.json").read_text())
    with (mirror / "stsb" / f"stsb-en-{split}.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    loaded = SentenceTransformer(str(model), device="cpu")
    one = loaded.encode([row[0] for row in rows], normalize_embeddings=True)
    two = loaded.encode([row[1] for row in rows], normalize_embeddings=True)
    return float(spearmanr((one * two).sum(axis=1), [float(row[2]) for row in rows]).statistic)
