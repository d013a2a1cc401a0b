"""DPO against its formula, computed sequence by sequence with padding and plain forward passes, and against TRL."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.models import load_model
from ftagent.toolkit.objectives.dpo import PreferenceObjective, PreferenceRows, with_reference
from ftagent.toolkit.objectives.dpo_rows import encode_preferences
from ftagent.toolkit.objectives.replies import untouched
from ftagent.toolkit.tokens import IGNORED, Row

from .adapters import adapted, gradients
from .rows import preferences

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
MOST = 2048


def pairs_of(model: Any, tokenizer: Any, tmp_path: Path) -> list[PreferenceRows]:
    rows = encode_preferences(model, tokenizer, preferences(), 512, "pairs.jsonl")
    return with_reference(model, rows, MOST, tmp_path / "reference.json", "x")


def naive_logprobs(model: Any, pairs: list[PreferenceRows]) -> tuple[Any, Any, Any, Any]:
    """(sums of chosen, of rejected, means of chosen, of rejected), from one right-padded batch."""
    import torch

    rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    width = max(len(row.ids) for row in rows)
    pad = [width - len(row.ids) for row in rows]
    ids = torch.tensor([[*row.ids, *[0] * more] for row, more in zip(rows, pad, strict=True)])
    labels = torch.tensor([[*row.labels, *[IGNORED] * more] for row, more in zip(rows, pad, strict=True)])[:, 1:]
    mask = torch.tensor([[1] * len(row.ids) + [0] * more for row, more in zip(rows, pad, strict=True)])
    logprobs = model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
    found = logprobs.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels != IGNORED)
    sums, counts = found.sum(1), (labels != IGNORED).sum(1)
    means = sums / counts
    half = len(pairs)
    return sums[:half], sums[half:], means[:half], means[half:]


@pytest.mark.parametrize("loss", ["sigmoid", "smoothed", "hinge", "ipo"])
@pytest.mark.parametrize("most", [0, MOST])
def test_loss_and_gradients_are_those_of_the_formula(tiny: Path, tmp_path: Path, loss: str, most: int) -> None:
    import torch

    model, tokenizer = adapted(tiny)
    pairs = pairs_of(model, tokenizer, tmp_path)
    beta, smoothing = 0.3, 0.1 if loss == "smoothed" else 0.0
    kind: Any = "sigmoid" if loss == "smoothed" else loss
    measures = PreferenceObjective(beta, kind, smoothing, most).backward(model, pairs, 0)
    found = gradients(model)

    base, _ = load_model(str(tiny), "float32", "cpu")
    with torch.no_grad():
        reference = naive_logprobs(base, pairs)
    policy = naive_logprobs(model, pairs)
    h = (policy[0] - reference[0]) - (policy[1] - reference[1])
    averaged = (policy[2] - reference[2]) - (policy[3] - reference[3])
    sure = torch.sigmoid(beta * h)
    expected = {
        "sigmoid": -sure.log(),
        "smoothed": -0.9 * sure.log() - 0.1 * (1 - sure).log(),
        "hinge": torch.relu(1 - beta * h),
        "ipo": (averaged - 1 / (2 * beta)) ** 2,
    }[loss].mean()
    expected.backward()
    assert measures["loss"] == pytest.approx(expected.item(), rel=1e-4)
    assert measures["margin"] == pytest.approx(beta * h.mean().item(), rel=1e-3, abs=1e-4)
    assert measures["accuracy"] == pytest.approx((h > 0).float().mean().item())
    assert measures["chosen_logprob"] == pytest.approx(policy[0].mean().item(), rel=1e-4)
    assert measures["rejected_logprob"] == pytest.approx(policy[1].mean().item(), rel=1e-4)
    for name, value in gradients(model).items():
        torch.testing.assert_close(found.pop(name), value, rtol=1e-3, atol=1e-4, msg=name)
    assert found == {}


def test_only_the_reply_has_labels_and_the_prompt_is_shared(tiny: Path) -> None:
    model, tokenizer = load_model(str(tiny), "float32", "cpu")
    pair = encode_preferences(model, tokenizer, preferences(), 512, "pairs.jsonl")[1]
    learnt = [
        tokenizer.decode([label for label in row.labels if label != IGNORED]) for row in (pair.chosen, pair.rejected)
    ]
    assert learnt[0].startswith("It is ")
    assert learnt[1].startswith("I think ")
    assert all(text.endswith("<|im_end|>") for text in learnt)
    assert "Hello." in tokenizer.decode(pair.chosen.ids)


def test_the_reference_is_the_untouched_model_whatever_the_adapters_are(tiny: Path, tmp_path: Path) -> None:
    import torch

    model, tokenizer = adapted(tiny)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    pairs = pairs_of(model, tokenizer, tmp_path)
    base, _ = load_model(str(tiny), "float32", "cpu")
    plain = with_reference(base, pairs, MOST, tmp_path / "plain.json", "x")
    for one, other in zip(pairs, plain, strict=True):
        assert one.reference == pytest.approx(other.reference, rel=1e-5)
    assert model.training
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trained
    ids = torch.tensor([pairs[0].chosen.ids])
    with untouched(model):
        off = model(ids).logits
    assert not torch.allclose(off, model(ids).logits, atol=1e-3)


def test_a_reference_is_computed_once_for_a_training(tiny: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(str(tiny), "float32", "cpu")
    cache = tmp_path / "reference.json"
    rows = encode_preferences(model, tokenizer, preferences(), 512, "pairs.jsonl")
    first = with_reference(model, rows, MOST, cache, "x")
    values = json.loads(cache.read_text())
    values["logprobs"][0][0] -= 1.0
    cache.write_text(json.dumps(values))
    again = with_reference(model, rows, MOST, cache, "x")
    assert again[0].reference[0] == first[0].reference[0] - 1.0
    assert again[1:] == first[1:]
    assert with_reference(model, rows, MOST, cache, "another training") == first
    cache.write_text("{")
    assert with_reference(model, rows, MOST, cache, "x") == first


def test_measuring_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    model, tokenizer = adapted(tiny)
    pairs = pairs_of(model, tokenizer, tmp_path)
    objective = PreferenceObjective(0.3, "sigmoid", 0.0, MOST)
    measured = objective.measure(model, pairs)
    assert gradients(model) == {}
    assert measured == pytest.approx(objective.backward(model, pairs, 0), rel=1e-5)
    base, _ = load_model(str(tiny), "float32", "cpu")
    assert objective.measure(base, pairs)["loss"] == pytest.approx(math.log(2), rel=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_three_steps_are_those_of_trl(tiny: Path, tmp_path: Path) -> None:
    """Plain gradient descent on all weights, so that nothing hides a factor in the gradient."""
    import torch
    from datasets import Dataset  # type: ignore[import-untyped]
    from trl import DPOConfig, DPOTrainer

    model, tokenizer = load_model(str(tiny), "float32", "cpu")
    dataset = [
        {name: [dict(message) for message in getattr(pair, name)] for name in ("prompt", "chosen", "rejected")}
        for pair in preferences()
    ]
    arguments = DPOConfig(
        output_dir=str(tmp_path), beta=0.3, per_device_train_batch_size=len(dataset), max_steps=3, learning_rate=0.002,
        lr_scheduler_type="constant", optim="sgd", max_grad_norm=0.0, logging_steps=1, report_to=[], use_cpu=True,
        bf16=False, save_strategy="no", gradient_checkpointing=False, disable_tqdm=True, max_length=512,
    )  # fmt: skip
    trainer = DPOTrainer(model, args=arguments, train_dataset=Dataset.from_list(dataset), processing_class=tokenizer)
    trainer.train()
    theirs = [line for line in trainer.state.log_history if "rewards/margins" in line]

    model, tokenizer = load_model(str(tiny), "float32", "cpu")
    # TRL also trains the template's newline after the end of the turn, which the model never writes.
    newline = tuple(tokenizer("\n")["input_ids"])
    rows = [
        PreferenceRows(*(Row(row.ids + newline, row.labels + newline, False) for row in (pair.chosen, pair.rejected)))
        for pair in encode_preferences(model, tokenizer, preferences(), 512, "pairs.jsonl")
    ]
    pairs = with_reference(model, rows, MOST, tmp_path / "reference.json", "x")
    objective = PreferenceObjective(0.3, "sigmoid", 0.0, MOST)
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.002)
    for line in theirs:
        optimizer.zero_grad()
        measures = objective.backward(model, pairs, 0)
        optimizer.step()
        assert measures["loss"] == pytest.approx(line["loss"], rel=2e-3)
        assert measures["margin"] == pytest.approx(line["rewards/margins"], rel=2e-3, abs=1e-4)
        assert measures["accuracy"] == pytest.approx(line["rewards/accuracies"], abs=1e-3)
        assert measures["chosen_reward"] == pytest.approx(line["rewards/chosen"], rel=2e-3, abs=1e-4)
    assert len(theirs) == 3
    assert theirs[-1]["rewards/margins"] > 0.1
