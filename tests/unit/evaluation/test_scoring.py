"""Scores from files: what is missing is wrong and said, what does not read is no score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftagent.core.errors import RequestError, ScoreUnavailable
from ftagent.evaluation.benchmark import Grade, Item
from ftagent.evaluation.evaluate import read_items, score_predictions
from ftagent.evaluation.procedural import ProceduralBenchmark
from ftagent.evaluation.scoring import Graded, mistakes, score_file

NAME = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2"
ITEMS = 40


@pytest.fixture(scope="module")
def benchmark() -> ProceduralBenchmark:
    return ProceduralBenchmark(NAME)


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_right_wrong_and_missing(benchmark: ProceduralBenchmark, tmp_path: Path) -> None:
    items = benchmark.items("validation", ITEMS)
    rows: list[dict[str, object]] = [{"id": item.id, "outputs": [item.answer]} for item in items[:20]]
    rows += [{"id": item.id, "output": "-99999"} for item in items[20:30]]
    score, graded = score_file(benchmark, items, write(tmp_path / "p.jsonl", rows))
    assert (score.value, score.n) == (0.5, ITEMS)
    assert score.details == {"answered_rate": 0.75, "valid_rate": 0.75}
    assert score.errors["missing"] == 10
    assert score.ci95 == pytest.approx((0.3520, 0.6480), abs=2e-4)  # Wilson, n = 40
    assert [record.value for record in graded[:20]] == [1.0] * 20


def test_samples_are_averaged_per_item(benchmark: ProceduralBenchmark, tmp_path: Path) -> None:
    items = benchmark.items("validation", ITEMS)
    rows: list[dict[str, object]] = [{"id": item.id, "outputs": [item.answer, "no", "no", "no"]} for item in items]
    score, _ = score_file(benchmark, items, write(tmp_path / "p.jsonl", rows), pass_k=(1, 2, 4, 8))
    assert (score.value, score.samples) == (0.25, 4)
    assert score.details["pass@1"] == 0.25
    assert score.details["pass@2"] == 0.5
    assert score.details["pass@4"] == 1.0
    assert "pass@8" not in score.details
    assert score.ci95[0] > 0.1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "p.jsonl:1: not JSON"),
        ("[]", "not a JSON object"),
        ('{"outputs": ["1"]}', 'no "id"'),
        ('{"id": "validation-0", "outputs": [1]}', "list of texts"),
        ('{"id": "validation-0"}', "list of texts"),
        ('{"id": "validation-0", "outputs": []}', "list of texts"),
        ('{"id": "validation-0", "output": "1"}\n{"id": "validation-0", "output": "2"}', "twice"),
        ('{"id": "other", "output": "1"}', "none of the 1 predictions"),
        ("", "none of the 0 predictions"),
    ],
)
def test_a_malformed_file_is_no_score(benchmark: ProceduralBenchmark, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(ScoreUnavailable, match=words):
        score_file(benchmark, benchmark.items("validation", ITEMS), path)


def test_no_file_and_a_link_are_no_score(benchmark: ProceduralBenchmark, tmp_path: Path) -> None:
    items = benchmark.items("validation", ITEMS)
    with pytest.raises(ScoreUnavailable, match="no such file"):
        score_file(benchmark, items, tmp_path / "absent.jsonl")
    target = write(tmp_path / "p.jsonl", [{"id": items[0].id, "output": items[0].answer}])
    (tmp_path / "link.jsonl").symlink_to(target)
    with pytest.raises(ScoreUnavailable, match="no such file"):
        score_file(benchmark, items, tmp_path / "link.jsonl")


def test_scoring_by_index_and_by_own_items(benchmark: ProceduralBenchmark, tmp_path: Path) -> None:
    items = benchmark.items("test", ITEMS)
    rows: list[dict[str, object]] = [{"index": n, "output": item.answer} for n, item in enumerate(items)]
    evaluation = score_predictions(benchmark, write(tmp_path / "p.jsonl", rows), "test", limit=ITEMS)
    assert evaluation.score.value == 1.0
    own = write(
        tmp_path / "items.jsonl", [{"question": "1 + 1 =", "answer": "2"}, {"question": "1 + 2 =", "answer": "3"}]
    )
    rows = [{"index": 0, "output": "2"}, {"index": 1, "output": "4"}]
    scored = score_predictions(benchmark, write(tmp_path / "q.jsonl", rows), "test", items_file=own, limit=ITEMS)
    assert scored.score.value == 0.5
    details = tmp_path / "details.jsonl"
    scored.write_details(details)
    assert [json.loads(line)["values"] for line in details.read_text().splitlines()] == [[1.0], [0.0]]


def test_items_that_do_not_read_are_refused(benchmark: ProceduralBenchmark, tmp_path: Path) -> None:
    items = benchmark.items("test", ITEMS)
    assert read_items(write(tmp_path / "i.jsonl", [{"id": items[3].id}]), items) == (items[3],)
    with pytest.raises(RequestError, match=r'i.jsonl:1: has no "answer"'):
        read_items(write(tmp_path / "i.jsonl", [{"id": "unknown"}]), items)
    with pytest.raises(RequestError, match="same id"):
        read_items(write(tmp_path / "i.jsonl", [{"id": "a", "answer": "1"}] * 2), items)


def test_mistakes_come_from_every_category_and_stay_short() -> None:
    def graded(number: int, category: str, output: str) -> Graded:
        item = Item(f"validation-{number}", "the-question", "the-answer")
        return Graded(item, (output,), (Grade(0.0 if category else 1.0, category=category),))

    rows = [graded(n, "close", f"close {n}") for n in range(9)] + [
        graded(9, "no_answer", "I\ngive up"),
        graded(10, "", "right"),
    ]
    rows += [graded(11, "empty", ""), Graded(Item("validation-12", "q", "a"), (), (Grade(0.0, category="missing"),))]
    told = mistakes(rows)
    assert told == ('close: "close 0"', 'empty: ""', 'no_answer: "I\\ngive up"', 'close: "close 1"', 'close: "close 2"')
    (long,) = mistakes([graded(0, "no_answer", "begin " + "x" * 999 + " end")])
    assert len(long) <= 300
    assert long.startswith('no_answer: "begin ')
    assert long.endswith('x end"')
    assert mistakes([graded(0, "", "right")]) == ()
