"""Lenient extraction: what people would read as the answer is the answer."""

import pytest

from ftagent.toolkit.verifiers.extract import extract_number, extract_texts, last_boxed, strip_thinking
from ftagent.toolkit.verifiers.numeric import grade_number
from ftagent.toolkit.verifiers.worker import GradingWorker


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("-5", "-5"),
        ("7 - 12 = -5", "-5"),
        ("x is - 5", "-5"),
        ("10 - 3", "3"),
        ("15-10", "10"),
        ("(-3)", "-3"),
        ("the difference is 3 – 4 = −1", "-1"),
        ("-$18.50", "-18.50"),
        ("The answer is 1,234 apples.", "1234"),
        ("**Answer:** 42", "42"),
        ("First 3, then 4.\n#### 72", "72"),
        (r"so \boxed{-7} as 9 > 8", "-7"),
        (r"\boxed{1} no, \boxed{\text{2 apples}}", "2"),
        ('{"reasoning": "2+2", "answer": 12}', "12"),
        ("answer: 3 + 4 = 7", "7"),
        ("12 divided by 4 is 3. So the answer is 3, not 4", "3"),
        ("<think>4</think> 5", "5"),
        ("no tag here 4</think> 5", "5"),
        ("1.5e-3", "1.5e-3"),
        ("<think> 44", None),
        ("none", None),
        ("", None),
    ],
)
def test_number(output: str, expected: str | None) -> None:
    assert extract_number(output) == expected


def test_thinking_and_nested_braces() -> None:
    assert strip_thinking("a <think>b</think> c") == "a  c"
    assert last_boxed(r"\boxed{\frac{1}{2}}") == r"\frac{1}{2}"
    assert last_boxed(r"\boxed{12") == "12"


def test_readings_of_text_prefer_the_mark() -> None:
    assert extract_texts("I think so.\n<answer>A B</answer>")[0] == "A B"
    assert extract_texts("words\nlast line.")[-1] == "last line"


def test_a_long_output_costs_little() -> None:
    assert extract_number("{" * 200_000 + "7") == "7"


def test_formulas_go_to_math_verify_and_a_tower_of_powers_ends_in_time() -> None:
    worker = GradingWorker(seconds=3.0)
    try:
        assert grade_number(r"\boxed{\frac{36}{2}}", "18", worker).value == 1.0
        assert grade_number(r"\boxed{\frac{36}{4}}", "18", worker).value == 0.0
        for hedge in (r"\boxed{\pm 18}", r"\boxed{18 \text{ or } 19}", r"\boxed{18 \lor 19}"):
            assert grade_number(hedge, "18", worker).value == 0.0, hedge
        assert grade_number(r"\boxed{9^{9^{9^9}}}", "18", worker).value == 0.0
        assert grade_number("the answer is 36/2", "18", worker).value == 1.0
    finally:
        worker.close()


@pytest.mark.parametrize(
    ("output", "category"),
    [("", "empty"), ("no", "no_answer"), ("-18", "wrong_sign"), ("19", "off_by_one"), ("180", "wrong_number_of_digits"),
     ("16.5", "close"), ("50", "wrong_number")],
)  # fmt: skip
def test_error_categories(output: str, category: str) -> None:
    grade = grade_number(output, "18", GradingWorker())
    assert (grade.value, grade.category) == (0.0, category)
