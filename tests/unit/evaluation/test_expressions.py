"""The normal form of arithmetic: equal exactly where operands commute."""

from hypothesis import given
from hypothesis import strategies as st

from ftagent.evaluation.expressions import expression_keys

numbers = st.integers(0, 999)


@given(numbers, numbers, st.sampled_from("+*"))
def test_commuting_operands_are_one_item(left: int, right: int, sign: str) -> None:
    assert expression_keys(f"What is {left} {sign} {right}?") == expression_keys(f"{right}{sign}{left} =")


@given(numbers, numbers, st.sampled_from("-/"))
def test_other_operands_are_two(left: int, right: int, sign: str) -> None:
    same = expression_keys(f"{left} {sign} {right}") == expression_keys(f"{right} {sign} {left}")
    assert same == (left == right)


@given(st.lists(st.tuples(st.sampled_from("+-"), numbers), min_size=2, max_size=6), st.randoms())
def test_terms_of_a_sum_may_stand_in_any_order(terms: list[tuple[str, int]], rng: object) -> None:
    shuffled = list(terms)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = ("0" + "".join(f" {sign} {value}" for sign, value in order) for order in (terms, shuffled))
    assert expression_keys(first) == expression_keys(second) != frozenset()


def test_what_is_no_expression() -> None:
    assert expression_keys("page 3, line 4. 7") == frozenset()
    assert expression_keys("((((") == frozenset()
    assert expression_keys("5 -") == frozenset()


def test_signs_and_spellings() -> None:
    assert expression_keys("-2 + 3") == expression_keys("3 - 2")
    assert expression_keys("3 × 4") == expression_keys("4 x 3") == expression_keys("4*3")
    assert expression_keys("05 + 3.0") == expression_keys("3+5")
    assert expression_keys("1. 2+3") == expression_keys("2+3")
    assert expression_keys("(2+3)*4") == expression_keys("4*(3+2)") != expression_keys("2+3*4")
