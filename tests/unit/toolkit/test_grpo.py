"""GRPO against an independent implementation: padded batches, plain forward passes, loops over tokens."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.data import Problem
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.models import load_model
from ftagent.toolkit.objectives.grpo import Group, PolicyObjective, PolicySettings, Prompt, advantages, repeated
from ftagent.toolkit.objectives.grpo_rows import encode_problems
from ftagent.toolkit.tokens import stop_tokens

from .adapters import adapted, gradients
from .rows import problems

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
SETTINGS = PolicySettings(
    group_size=4, updates=1, kl=0.05, clip=0.2, scale_rewards=True, normalisation="grpo", seed=3, max_new_tokens=6,
    temperature=1.0, top_p=1.0, batch_size=64, batch_tokens=8192,
)  # fmt: skip


def letters(problem: Problem, output: str) -> float:
    """A reward with a signal where replies are senseless."""
    return (sum(map(ord, output)) % 5) / 4


def objective_of(model: Any, tokenizer: Any, settings: PolicySettings, most: int = 2048) -> PolicyObjective:
    # Senseless replies meet the real end of turn too seldom: a fifth of all tokens ends these.
    stops = {*stop_tokens(tokenizer, model), *range(3, len(tokenizer), 5)}
    return PolicyObjective(settings, letters, tokenizer.decode, stops, most)


def prompts_of(model: Any, tokenizer: Any, number: int = 3) -> list[Prompt]:
    return encode_problems(model, tokenizer, problems(number), 6, "problems.jsonl")


def naive_logprobs(model: Any, group: Group, temperature: float) -> list[list[Any]]:
    """Of each reply, a list of scalar tensors, one a token."""
    import torch

    width = max(len(row.ids) for row in group.rows)
    ids = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in group.rows])
    mask = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in group.rows])
    logprobs = (model(input_ids=ids, attention_mask=mask).logits / temperature).log_softmax(-1)
    start = len(group.prompt.ids)
    return [
        [logprobs[number, place - 1, row.ids[place]] for place in range(start, len(row.ids))]
        for number, row in enumerate(group.rows)
    ]


def naive_loss(
    policy: list[list[list[Any]]], old: list[list[list[Any]]], reference: list[list[list[Any]]],
    groups: list[Group], settings: PolicySettings,
) -> Any:  # fmt: skip
    replies = sum(len(group.rows) for group in groups)
    tokens = sum(len(reply) for group in policy for reply in group)
    total: Any = 0.0
    for number, group in enumerate(groups):
        mean = sum(group.rewards) / len(group.rewards)
        deviation = statistics.stdev(group.rewards) + 1e-4 if settings.scale_rewards else 1.0
        for reply, reward in enumerate(group.rewards):
            advantage = (reward - mean) / deviation
            for now, then, base in zip(*(source[number][reply] for source in (policy, old, reference)), strict=True):
                ratio = (now - then).exp()
                bounded = ratio.clamp(1 - settings.clip, 1 + settings.clip)
                gain = min(ratio * advantage, bounded * advantage, key=lambda value: value.item())
                k3 = (base - now).exp() - (base - now) - 1
                length = len(policy[number][reply])
                divisor = {
                    "grpo": replies * length, "dapo": tokens, "dr_grpo": replies * settings.max_new_tokens,
                }[settings.normalisation]  # fmt: skip
                total = total + (settings.kl * k3 - gain) / divisor
    return total


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"normalisation": "dapo", "temperature": 0.7},
        {"normalisation": "dr_grpo", "scale_rewards": False, "kl": 0.0},
        {"updates": 2, "kl": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize("most", [0, 60, 2048])
def test_loss_and_gradients_are_those_of_the_formula(tiny: Path, values: dict[str, Any], most: int) -> None:
    import torch

    settings = replace(SETTINGS, **values)
    model, tokenizer = adapted(tiny)
    objective = objective_of(model, tokenizer, settings, most)
    batch = prompts_of(model, tokenizer)
    groups = objective.roll_out(model, list(enumerate(batch)), 0)
    lengths = {length for group in groups for length in group.lengths}
    assert len(lengths) > 2, "replies of one length would hide the normalisation"
    assert len({reward for group in groups for reward in group.rewards}) > 2
    with torch.no_grad():
        old = [naive_logprobs(model, group, settings.temperature) for group in groups]
    measures = objective.backward(model, batch, 0)
    found = gradients(model)
    if settings.updates > 1:
        # Far enough that some ratios are cut.
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in found:
                    parameter -= 0.5 * found[name].sign() * 0.1
        measures = objective.backward(model, batch, 1)
        found = gradients(model)
        assert measures["clipped"] > 0
    base, _ = load_model(str(tiny), "float32", "cpu")
    with torch.no_grad():
        reference = [naive_logprobs(base, group, settings.temperature) for group in groups]
    policy = [naive_logprobs(model, group, settings.temperature) for group in groups]
    expected = naive_loss(policy, old, reference, groups, settings)
    expected.backward()
    assert measures["loss"] == pytest.approx(expected.item(), rel=1e-3, abs=1e-5)
    for name, value in gradients(model).items():
        largest = value.abs().max().item()
        torch.testing.assert_close(found.pop(name), value, rtol=2e-3, atol=1e-3 * largest, msg=name)
    assert found == {}


def test_replies_depend_on_seed_and_step_alone_and_end_where_the_model_ends_them(tiny: Path) -> None:
    model, tokenizer = adapted(tiny)
    batch = prompts_of(model, tokenizer)

    def replies(seed: int, step: int) -> list[Any]:
        objective = objective_of(model, tokenizer, replace(SETTINGS, seed=seed))
        return [row.ids for group in objective.roll_out(model, list(enumerate(batch)), step) for row in group.rows]

    first = replies(3, 5)
    assert replies(3, 5) == first
    assert replies(3, 6) != first
    assert replies(4, 5) != first
    objective = objective_of(model, tokenizer, SETTINGS)
    assert model.training
    ended = 0
    for group in objective.roll_out(model, list(enumerate(batch)), 0):
        for row, length, truncated in zip(group.rows, group.lengths, group.truncated, strict=True):
            reply = row.ids[len(group.prompt.ids) :]
            assert len(reply) == length
            assert row.labels[len(group.prompt.ids) :] == reply
            last_ends = reply[-1] in objective._stops
            assert truncated is not last_ends
            assert length == SETTINGS.max_new_tokens or last_ends
            ended += last_ends
    assert ended


def test_measures_are_those_of_the_replies(tiny: Path) -> None:
    model, tokenizer = adapted(tiny)
    batch = prompts_of(model, tokenizer)
    objective = objective_of(model, tokenizer, replace(SETTINGS, kl=0.0))
    groups = objective.roll_out(model, list(enumerate(batch)), 7)
    measures = objective.backward(model, batch, 7)
    rewards = [reward for group in groups for reward in group.rewards]
    assert set(measures) == {
        "loss", "clipped", "reward", "reward_std", "no_signal", "reply_tokens", "truncated",
    }  # fmt: skip
    assert measures["reward"] == pytest.approx(sum(rewards) / len(rewards))
    assert measures["reply_tokens"] == pytest.approx(sum(sum(g.lengths) for g in groups) / len(rewards))
    assert measures["truncated"] == pytest.approx(sum(sum(g.truncated) for g in groups) / len(rewards))
    assert objective.tokens(batch) == sum(len(row.ids) for group in groups for row in group.rows)
    assert objective.measure(model, batch) == objective.measure(model, batch)


def test_without_a_signal_nothing_is_learnt(tiny: Path) -> None:
    model, tokenizer = adapted(tiny)
    settings = replace(SETTINGS, kl=0.0)
    objective = PolicyObjective(settings, lambda problem, output: 1.0, tokenizer.decode, {2}, 2048)
    measures = objective.backward(model, prompts_of(model, tokenizer), 0)
    assert measures["no_signal"] == 1.0
    assert measures["reward_std"] == 0.0
    found = gradients(model)
    assert found
    assert not any(value.any() for value in found.values())


def test_advantages_are_relative_to_the_group() -> None:
    assert advantages([1.0, 1.0, 1.0], True) == [0.0, 0.0, 0.0]
    assert advantages([1.0, 0.0], False) == [0.5, -0.5]
    assert advantages([1.0, 0.0], True) == pytest.approx([0.70701, -0.70701], abs=1e-4)


def test_each_batch_is_used_for_several_updates() -> None:
    one, other = [object()], [object()]
    batches: Any = repeated([one, other], 2)  # type: ignore[list-item]
    assert batches == [one, one, other, other]


def test_a_prompt_that_leaves_no_room_is_named(tiny: Path) -> None:
    model, tokenizer = load_model(str(tiny), "float32", "cpu")
    most = model.config.max_position_embeddings
    with pytest.raises(ToolkitError, match=rf"problems\.jsonl:1: .* exceed the model's {most}"):
        encode_problems(model, tokenizer, problems(2), most, "problems.jsonl")
