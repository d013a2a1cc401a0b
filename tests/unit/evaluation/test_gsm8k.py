"""GSM8K on its real rows through the mirror."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ftagent.core.context import HubAccess
from ftagent.core.errors import RequestError
from ftagent.evaluation.gsm8k import Gsm8k
from ftagent.evaluation.mirror import load_rows
from ftagent.evaluation.overlap import OverlapGate

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Gsm8k:
    return Gsm8k(HubAccess(mirror=Path(os.environ["FTAGENT_DATA_MIRROR"])), tmp_path_factory.mktemp("files"))


def test_every_published_solution_grades_as_right(benchmark: Gsm8k) -> None:
    rows = load_rows("openai/gsm8k", "main", "train", benchmark._hub, Path())
    by_question = {item.question: item for item in benchmark._ordered_train}
    assert len(rows) == 7473
    wrong = [row for row in rows if benchmark.grade(by_question[row["question"]], row["answer"]).value != 1.0]
    assert wrong == []


def test_a_wrong_number_grades_as_wrong(benchmark: Gsm8k) -> None:
    for item in benchmark.items("test", 50):
        assert benchmark.grade(item, f"#### {int(float(item.answer)) + 1}").value == 0.0


def test_sizes_and_disjoint_splits(benchmark: Gsm8k) -> None:
    assert len(benchmark.items("test")) == 1319
    assert len(benchmark.items("validation")) == 500
    assert benchmark.items("confirm") == ()
    training = {row.question for row in benchmark.training_rows()}
    assert 6900 < len(training) <= 6973
    validation, confirm = benchmark.items("validation", 100), benchmark.items("confirm", 100)
    assert {item.id for item in validation}.isdisjoint(item.id for item in confirm)
    for item in (*benchmark.items("validation"), *confirm, *benchmark.items("test")):
        assert item.question not in training


def test_a_limit_takes_the_same_subset_every_time(benchmark: Gsm8k, tmp_path: Path) -> None:
    again = Gsm8k(benchmark._hub, tmp_path)
    for split in ("validation", "test"):
        small, large = benchmark.items(split, 20), again.items(split, 60)
        assert len(small) == 20
        assert {item.id for item in small} < {item.id for item in large}
        assert small == again.items(split, 20)


def test_the_gate_finds_planted_items_and_nothing_else(benchmark: Gsm8k, tmp_path: Path) -> None:
    items = [*benchmark.items("validation"), *benchmark.items("test")]
    gate = OverlapGate(items, benchmark.duplicate_keys)
    rows = benchmark.training_rows(300)
    assert [row.id for row in rows if gate.hit(row.question, row.solution)] == []
    stolen = benchmark.items("test", 5)
    assert all(gate.hit(item.question) for item in stolen)
    assert gate.hit(stolen[0].question.upper() + "!") is not None
    assert gate.hit("Solve this one please: " + stolen[1].question + " Think first.") is not None


def test_a_mirror_says_what_it_lacks(benchmark: Gsm8k, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"has no dataset nobody/nothing; it has: .*openai/gsm8k"):
        load_rows("nobody/nothing", "main", "train", benchmark._hub, tmp_path)
    with pytest.raises(RequestError, match="no split dev; it has: train, test"):
        load_rows("openai/gsm8k", "main", "dev", benchmark._hub, tmp_path)
    with pytest.raises(RequestError, match=r"mirror\.json cannot be read"):
        load_rows("openai/gsm8k", "main", "train", HubAccess(mirror=tmp_path), tmp_path)


def test_csv_of_the_mirror(benchmark: Gsm8k, tmp_path: Path) -> None:
    rows = load_rows("sentence-transformers/stsb", "default", "validation", benchmark._hub, tmp_path)
    assert len(rows) == 1500
    assert set(rows[0]) == {"sentence1", "sentence2", "score"}
