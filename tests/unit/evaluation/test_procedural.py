"""Procedural benchmarks: names, splits, grading of every task with its own answers."""

from __future__ import annotations

import inspect
import random
from pathlib import Path

import pytest

from ftagent.core.errors import RequestError
from ftagent.evaluation.procedural import ProceduralBenchmark, split_of
from ftagent.toolkit.verifiers.guard import GUARDED, harmless
from ftagent.toolkit.verifiers.tasks import describe_task, task_names

TWO_TERMS = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2"
SPLITS = ("validation", "confirm", "test")
WITHOUT_ANSWER = {"boxnet", "rush_hour"}
SLOW = {"futoshiki", "intermediate_integration", "knight_swap", "puzzle24", "sokoban", "zebra_puzzles"}
COMPOSITE = 'rg:composite?datasets=[{"name":"chain_sum"},{"name":"gcd","weight":2}]'


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rg:chain_sun", "did you mean 'chain_sum'"),
        ("rg:chain_sum?min_term=2", "did you mean 'min_terms'.*valid keys: min_terms, max_terms"),
        ("rg:chain_sum?min_terms=two", "min_terms='two' is not of type int"),
        ("rg:chain_sum?min_terms=0", "min_terms must be positive"),
        ("rg:chain_sum?min_terms", "is not key=value"),
        ("rg:chain_sum?seed=1", "seed is set by the splits"),
        ("rg:basic_arithmetic?format_style=odd", "format_style='odd'"),
    ],
)
def test_a_wrong_name_says_what_is_right(name: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        ProceduralBenchmark(name)


def test_values_of_all_kinds_are_read() -> None:
    task = ProceduralBenchmark(
        "rg:basic_arithmetic?operators=+,-&allow_parentheses=false&whitespace=single&max_digits=2"
    )
    assert all("*" not in item.question for item in task.items("validation", 30))
    assert ProceduralBenchmark("rg:word_sorting?transformation=uppercase").items("test", 20)
    assert ProceduralBenchmark(COMPOSITE).items("test", 20)
    assert describe_task("chain_sum")["max_terms"] == 6


@pytest.mark.parametrize(
    "name", [TWO_TERMS, "rg:products?max_digits=2", "rg:gcd", "rg:number_sorting", "rg:caesar_cipher"]
)
def test_splits_share_no_item_in_any_operand_order(name: str) -> None:
    benchmark = ProceduralBenchmark(name)
    questions = {split: [item.question for item in benchmark.items(split, 60)] for split in SPLITS}
    questions["train"] = [row.question for row in benchmark.training_rows(400)]
    keys = {
        split: {key for text in texts for key in benchmark.duplicate_keys(text)} for split, texts in questions.items()
    }
    names = sorted(keys)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            assert keys[first].isdisjoint(keys[second]), (first, second)
    for split in SPLITS:
        assert len(keys[split]) == 60


def test_operand_order_is_ignored_where_it_does_not_matter() -> None:
    keys = ProceduralBenchmark(TWO_TERMS).duplicate_keys
    assert keys("2 + 3 =") == keys("State the final answer: 3 + 2 =")
    assert keys("2 - 3 =") != keys("3 - 2 =")
    products = ProceduralBenchmark("rg:products").duplicate_keys
    assert products("Solve 12 * 34") == products("34 * 12")
    gcd = ProceduralBenchmark("rg:gcd").duplicate_keys
    assert gcd("numbers: 4, 6") == gcd("of 6, 4.")


def test_both_orders_of_a_sum_never_sit_in_two_splits() -> None:
    benchmark = ProceduralBenchmark(TWO_TERMS)
    for left in range(40):
        for right in range(40):
            (one,), (other,) = (
                benchmark.duplicate_keys(f"{left} + {right}"),
                benchmark.duplicate_keys(f"{right} + {left}"),
            )
            assert split_of(one) == split_of(other)


def test_the_same_items_every_time_and_prefixes_nest() -> None:
    first, second = ProceduralBenchmark(TWO_TERMS), ProceduralBenchmark(TWO_TERMS)
    second.training_rows(50)
    assert first.items("test", 30) == second.items("test", 80)[:30]
    assert first.training_rows(100) == second.training_rows(100)


def test_the_global_random_generator_is_left_alone() -> None:
    random.seed(7)
    expected = random.Random(7).random()
    ProceduralBenchmark("rg:list_functions").items("test", 20)
    assert random.random() == expected


def test_a_space_too_small_is_said_clearly() -> None:
    with pytest.raises(RequestError, match=r"only 2 distinct items for test, 300 asked.*too small"):
        ProceduralBenchmark("rg:coin_flip?min_trials=1&max_trials=1").items("test")
    small = ProceduralBenchmark("rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1")
    assert 20 <= len(small.items("test")) < 60


def test_a_task_without_answers_cannot_be_trained_on() -> None:
    with pytest.raises(RequestError, match="no reference answers"):
        ProceduralBenchmark("rg:rush_hour").training_rows(5)


def grade_own_answers(name: str, count: int) -> None:
    benchmark = ProceduralBenchmark(COMPOSITE if name == "composite" else f"rg:{name}")
    items = benchmark.items("test", count)
    assert len(items) == count
    for item in items:
        assert benchmark.grade(item, "").value == 0.0
        if name not in WITHOUT_ANSWER:
            assert benchmark.grade(item, item.answer).value == 1.0, item.answer
            assert (
                benchmark.grade(item, f"Let me see.\nThe answer is {item.answer}").value == 1.0 or "\n" in item.answer
            )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_every_task_grades_its_own_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    # A child process for each of a hundred tasks would take minutes; test_drawing.py has the child.
    monkeypatch.setattr("ftagent.evaluation.procedural.reproducible", lambda: True)
    wrong = {}
    for name in task_names():
        try:
            grade_own_answers(name, 1 if name in SLOW else 4)
        except (AssertionError, RequestError) as error:
            wrong[name] = str(error)[:300]
    assert wrong == {}


@pytest.mark.parametrize("name", ["chain_sum", "gcd", "caesar_cipher", "graph_color", "number_sorting", "composite"])
def test_some_tasks_grade_their_own_answers(name: str) -> None:
    grade_own_answers(name, 10)


def test_a_wrong_answer_is_wrong() -> None:
    benchmark = ProceduralBenchmark(TWO_TERMS)
    for item in benchmark.items("test", 30):
        assert benchmark.grade(item, str(int(item.answer) + 1)).value == 0.0
        assert benchmark.grade(item, f"{item.answer} or {int(item.answer) + 1}").value == 0.0


def test_every_verifier_that_evaluates_answers_is_guarded() -> None:
    from reasoning_gym.factory import DATASETS

    evaluating = {
        name
        for name, (dataset, _) in DATASETS.items()
        if any(call in inspect.getsource(dataset.score_answer) for call in ("eval(", "exec(", "parse_expr", "sympify"))
    }
    # number_sorting evaluates its own reference only.
    assert evaluating - {"number_sorting"} == GUARDED


@pytest.mark.parametrize("task", sorted(GUARDED))
@pytest.mark.parametrize(
    "answer",
    ["__import__('os').system('true')", "open('x', 'w')", "().__class__.__bases__", "[a for a in 'b' for c in 'd']",
     "x.diff(y)", "9999999999999**9999999999999", "exit()", "lambda: 1"],
)  # fmt: skip
def test_code_never_reaches_a_verifier(task: str, answer: str) -> None:
    assert not harmless(task, answer)


@pytest.mark.parametrize(
    ("task", "answer"),
    [("countdown", "94*4 - 61 - 6"), ("simple_integration", "x**2/2 + sin(x) + C"), ("n_queens", "_ Q _\nQ _ _"),
     ("string_insertion", "ABCDEE"), ("spiral_matrix", "1 2 3"), ("binary_matrix", "[[0, 1], [1, 0]]")],
)  # fmt: skip
def test_honest_answers_do(task: str, answer: str) -> None:
    assert harmless(task, answer)


def test_planted_code_has_no_effect(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for name in ("rg:spiral_matrix", "rg:countdown"):
        benchmark = ProceduralBenchmark(name)
        item = benchmark.items("test", 20)[0]
        assert benchmark.grade(item, f"open('{marker}', 'w').close()").value == 0.0
    assert not marker.exists()
