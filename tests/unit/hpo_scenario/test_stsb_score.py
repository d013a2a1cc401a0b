"""Predicted similarities become a score, or one line that says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import pearsonr, spearmanr

from ftagent.core.errors import ScoreUnavailable
from ftagent.core.statistics import pooled
from ftagent.core.types import Score
from ftagent_hpo.stsb_data import Pair
from ftagent_hpo.stsb_score import score_predictions

GOLD = [0.0, 0.2, 0.2, 0.9, 0.5, 1.0]
PAIRS = [Pair(f"dev-{index}", f"a {index}", f"b {index}", gold) for index, gold in enumerate(GOLD)]
SAID = [0.1, 0.3, 0.05, 0.7, 0.9, 0.8]


def rows(values: list[Any], group: str = "seed0") -> list[dict[str, Any]]:
    return [{"id": f"{group}/dev-{index}", "similarity": value} for index, value in enumerate(values)]


def score(tmp_path: Path, *given: dict[str, Any] | str, groups: tuple[str, ...] = ("seed0",)) -> Score:
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in given))
    return score_predictions(path, PAIRS, groups)


def test_the_score_is_the_rank_correlation_with_gold(tmp_path: Path) -> None:
    info = {"id": "seed0/", "latency_ms": 2.5, "model_mb": 90.0}
    found = score(tmp_path, *rows(SAID)[::-1], info)
    assert found.value == pytest.approx(spearmanr(SAID, GOLD).statistic)
    assert found.details == {
        "pearson": pytest.approx(pearsonr(SAID, GOLD).statistic),
        "latency_ms": 2.5,
        "model_mb": 90,
    }
    assert (found.n, found.metric, found.statistic, found.notes) == (6, "spearman", "spearman", ())


def test_repeated_seeds_join_the_first(tmp_path: Path) -> None:
    first = score(tmp_path, *rows(SAID))
    others = score(tmp_path, *rows(SAID[::-1], "seed1"), *rows(SAID, "seed2"), groups=("seed1", "seed2"))
    assert others.value == pytest.approx((spearmanr(SAID[::-1], GOLD).statistic + first.value) / 2)
    both = pooled(first, others)
    assert both.value == pytest.approx((first.value + 2 * others.value) / 3)
    assert both.n == 6


def test_a_batch_that_had_to_be_lowered_is_told(tmp_path: Path) -> None:
    lowered = score(tmp_path, *rows(SAID), {"id": "seed0/", "batch_size": 64, "at_once": 8})
    assert lowered.notes == ("out of memory: 8 pairs at once instead of 64; an update still saw 64",)
    assert score(tmp_path, *rows(SAID), {"id": "seed0/", "batch_size": "x", "at_once": None}).notes == ()


FIVE = rows(SAID[:5])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (FIVE, "1 of 6 pairs have no prediction, the first is seed0/dev-5"),
        ([*FIVE, {"id": "seed0/dev-5"}], "the similarity of seed0/dev-5 is None"),
        (
            [*FIVE, '{"id": "seed0/dev-5", "similarity": NaN}'],
            "predictions.jsonl:6: the similarity of seed0/dev-5 is nan",
        ),
        ([*FIVE, {"id": "seed0/dev-5", "similarity": True}], "is True, which is no number"),
        ([*FIVE, {"id": "seed0/dev-0", "similarity": 1}], "predictions.jsonl:6: seed0/dev-0 is predicted twice"),
        ([*FIVE, {"id": "seed1/dev-5", "similarity": 1}], "'seed1/dev-5' is no pair that was asked for"),
        ([*FIVE, {"id": 5}], "'5' is no pair that was asked for"),
        ([*FIVE, "{"], "predictions.jsonl:6: not JSON"),
        ([*FIVE, "[]"], "predictions.jsonl:6: not a JSON object"),
        (rows([0.5] * 6), "spearman: all predictions, or all gold values, are the same"),
        ([], "6 of 6 pairs have no prediction"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_what_is_no_prediction_gives_no_score(tmp_path: Path, given: list[Any], words: str) -> None:
    with pytest.raises(ScoreUnavailable) as error:
        score(tmp_path, *given)
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_no_file_is_no_score(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.jsonl"):
        with pytest.raises(ScoreUnavailable, match=r"left no predictions\.jsonl"):
            score_predictions(path, PAIRS, ["seed0"])
