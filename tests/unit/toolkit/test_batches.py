from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftagent.toolkit.batches import pack, plan, split_into_packs
from ftagent.toolkit.tokens import IGNORED, Row

LENGTHS = st.lists(st.integers(2, 40), min_size=1, max_size=20)


@given(lengths=LENGTHS, budget=st.integers(1, 2000), seed=st.integers(0, 9))
def test_a_token_budget_is_met_exactly_and_rows_are_seen_equally_often(
    lengths: list[int], budget: int, seed: int
) -> None:
    seen = plan(lengths, seed, None, budget)
    assert sum(item.tokens for item in seen) == budget
    assert all(item.tokens == lengths[item.row] for item in seen[:-1])
    counts = [sum(item.row == row for item in seen) for row in range(len(lengths))]
    assert max(counts) - min(counts) <= 1
    assert plan(lengths, seed, None, budget) == seen


@given(lengths=LENGTHS, epochs=st.floats(0.1, 4), seed=st.integers(0, 9))
def test_epochs_count_rows(lengths: list[int], epochs: float, seed: int) -> None:
    seen = plan(lengths, seed, epochs, None)
    assert len(seen) == max(1, round(len(lengths) * epochs))
    whole = len(seen) // len(lengths)
    for epoch in range(whole):
        rows = [item.row for item in seen[epoch * len(lengths) : (epoch + 1) * len(lengths)]]
        assert sorted(rows) == list(range(len(lengths)))


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = {tuple(item.row for item in plan([2] * 20, seed, 1, None)) for seed in range(5)}
    assert len(orders) == 5
    twice = [item.row for item in plan([2] * 20, 0, 2, None)]
    assert twice[:20] != twice[20:]


def row(prompt: list[int], reply: list[int]) -> Row:
    return Row((*prompt, *reply), (*[IGNORED] * len(prompt), *reply), False)


ROWS = [row([5, 6, 7, 8], [9, 2]), row([5, 6, 7], [9, 10, 11, 2]), row([5, 6, 7, 3, 4], [2])]


def test_a_pack_holds_the_common_beginning_once() -> None:
    packed = pack(ROWS)
    assert packed.ids == [5, 6, 7, 8, 9, 2, 9, 10, 11, 2, 3, 4, 2]
    assert packed.positions == [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 3, 4, 5]
    assert packed.segments == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]
    # The first label of the second row follows the last token of the common beginning.
    assert packed.sources == [3, 4, 2, 6, 7, 8, 11]
    assert packed.targets == [9, 2, 9, 10, 11, 2, 2]
    assert packed.rows == [0, 0, 1, 1, 1, 1, 2]


@given(most=st.integers(0, 30))
def test_packs_keep_all_labels_and_their_bound(most: int) -> None:
    packs = split_into_packs(ROWS * 2, most)
    assert sum(len(item.targets) for item in packs) == 14
    assert all(len(item.ids) <= most or max(item.segments) == 1 for item in packs)


@pytest.mark.model
@pytest.mark.parametrize("most", [0, 10, 2048])
def test_packed_loss_and_gradients_equal_those_of_single_rows(tiny: Path, most: int) -> None:
    import torch

    from ftagent.toolkit.losses import summed_loss
    from ftagent.toolkit.models import load_model

    model, _ = load_model(str(tiny), "float32", "cpu")

    def gradients(loss: Any) -> dict[str, Any]:
        model.zero_grad()
        loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    single = sum(
        model(input_ids=torch.tensor([item.ids]), labels=torch.tensor([item.labels])).loss
        * sum(label != IGNORED for label in item.labels)
        for item in ROWS
    )
    packed = sum(summed_loss(model, item) for item in split_into_packs(ROWS, most))
    torch.testing.assert_close(packed, single, rtol=1e-5, atol=1e-5)
    expected = gradients(single)
    for name, value in gradients(packed).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4, msg=name)
