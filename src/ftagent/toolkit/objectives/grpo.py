"""Group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300).

Each step samples a group of replies to each problem and rewards them. A reply's advantage A is its reward minus the
group's mean, divided by the group's standard deviation where rewards are scaled. With the ratio r of a token's
probability to that when it was sampled, and the ratio ρ of the reference's to the model's, a token costs

    −min(r·A, clip(r, 1 − clip, 1 + clip)·A) + kl·(ρ − log ρ − 1)

The last term is the k3 estimator of the divergence from the model before training (Schulman 2020). How tokens are
averaged is `normalisation`:

- grpo: over each reply, then over replies; long replies' tokens count less (Shao et al.)
- dapo: over all tokens of the step (Yu et al. 2025, arXiv 2503.14476)
- dr_grpo: by the longest reply that is allowed, so that length has no influence (Liu et al. 2025, arXiv 2503.20783;
  their paper also leaves rewards unscaled)
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ftagent.toolkit.data import Problem
from ftagent.toolkit.generate import Draft, generate
from ftagent.toolkit.objectives.replies import chunks, evaluating, logprobs_by_row, untouched
from ftagent.toolkit.share import ALONE, Share
from ftagent.toolkit.tokens import IGNORED, Row

Normalisation = Literal["grpo", "dapo", "dr_grpo"]
SMALLEST_DEVIATION = 1e-4
"""Added to a standard deviation before it divides, in units of reward."""


@dataclass(frozen=True)
class PolicySettings:
    """See the module. `updates`: optimiser steps per set of replies. `temperature` is that of sampling, and the
    probabilities of the ratio are those at this temperature; `top_p` cuts what is sampled alone."""

    group_size: int
    updates: int
    kl: float
    clip: float
    scale_rewards: bool
    normalisation: Normalisation
    seed: int
    max_new_tokens: int
    temperature: float
    top_p: float
    batch_size: int
    batch_tokens: int


@dataclass(frozen=True)
class Prompt:
    """A problem as tokens, to where the reply begins."""

    problem: Problem
    ids: tuple[int, ...]


@dataclass
class Group:
    """Replies to one prompt. Lists have an entry a reply; `old`, `reference`: log-probabilities of its tokens in nats,
    once they are needed."""

    prompt: Prompt
    rows: list[Row]
    lengths: list[int]
    rewards: list[float]
    truncated: list[bool]
    advantages: list[float] = field(default_factory=list)
    old: list[Any] = field(default_factory=list)
    reference: list[Any] = field(default_factory=list)


class PolicyObjective:
    """Over batches of `Prompt`, each batch `settings.updates` times in a row (`repeated`).

    `reward` judges (problem, text of a reply), `decode` makes the text, `stops` end a reply. `pack_tokens` bounds one
    forward pass; 0 gives each reply its own.
    """

    def __init__(
        self, settings: PolicySettings, reward: Callable[[Problem, str], float], decode: Callable[[list[int]], str],
        stops: Collection[int], pack_tokens: int, share: Share = ALONE,
    ) -> None:  # fmt: skip
        self.settings = settings
        self._reward = reward
        self._decode = decode
        self._stops = stops
        self._pack_tokens = pack_tokens
        self.share = share
        self._groups: list[Group] = []
        self._seen = 0

    def backward(self, model: Any, batch: Sequence[Prompt], step: int) -> dict[str, float]:
        """`loss`, near 0 by construction where each set of replies is used once; `kl` in nats a token; `clipped`, the
        share of tokens whose ratio is cut; and what `measures_of` says of the replies."""
        settings = self.settings
        if step % settings.updates == 0:
            self._groups = self.roll_out(model, self.share.of(list(enumerate(batch))), step)
        totals = self.share.sum_measures({
            "reply": sum(sum(group.lengths) for group in self._groups),
            "seen": sum(len(row.ids) for group in self._groups for row in group.rows),
        })  # fmt: skip
        tokens, self._seen = int(totals["reply"]), int(totals["seen"])
        measures = {"loss": 0.0, "kl": 0.0, "clipped": 0.0}
        for group in self._groups:
            if settings.kl == 0 and not any(group.advantages):
                continue  # its gradient is exactly 0
            for name, value in self._backward_group(model, group, tokens, len(batch)).items():
                measures[name] += value
        _fill_gradients(model)
        for name in ("kl", "clipped"):
            measures[name] /= tokens
        if settings.kl == 0:
            del measures["kl"]
        return {**measures, **measures_of(self._groups, len(batch))}

    def tokens(self, batch: Sequence[Prompt]) -> int:
        """Of the replies to `batch` as they were last sampled, each with its prompt."""
        return self._seen

    def measure(self, model: Any, batch: Sequence[Prompt]) -> dict[str, float]:
        """`measures_of` replies that are sampled with random numbers of their own, the same at every call."""
        return measures_of(self.roll_out(model, list(enumerate(batch)), -1), len(batch))

    def held_out_loss(self, model: Any, batches: Sequence[Sequence[Prompt]]) -> float:
        """Minus the mean reward of replies that are sampled for all of `batches`."""
        return -self.measure(model, [prompt for batch in batches for prompt in batch])["reward"]

    def roll_out(self, model: Any, batch: Sequence[tuple[int, Prompt]], step: int) -> list[Group]:
        """Groups of replies with their advantages, from one generation, for prompts with their place in the step.

        Random numbers depend on seed, `step` and place.
        """
        drafts = [
            [Draft(f"{step}/{place}", sample, list(prompt.ids)) for sample in range(self.settings.group_size)]
            for place, prompt in batch
        ]
        with evaluating(model):
            settings: Any = self.settings
            if drafts:
                generate(model, [draft for group in drafts for draft in group], self._stops, settings, lambda _: None)
        return [self._group(prompt, group) for (_, prompt), group in zip(batch, drafts, strict=True)]

    def _group(self, prompt: Prompt, drafts: Sequence[Draft]) -> Group:
        replies = [draft.new + ([] if draft.stop is None else [draft.stop]) for draft in drafts]
        ignored = (IGNORED,) * len(prompt.ids)
        rewards = [self._reward(prompt.problem, self._decode(draft.new)) for draft in drafts]
        return Group(
            prompt,
            [Row((*prompt.ids, *reply), (*ignored, *reply), False) for reply in replies],
            [len(reply) for reply in replies],
            rewards,
            [draft.stop is None for draft in drafts],
            advantages(rewards, self.settings.scale_rewards),
        )

    def _backward_group(self, model: Any, group: Group, tokens: int, groups: int) -> dict[str, float]:
        """Sums over the group's tokens; the whole step has `tokens` in `groups`."""
        settings = self.settings
        totals = {"loss": 0.0, "kl": 0.0, "clipped": 0.0}
        done = 0
        for rows in chunks(group.rows, len(group.prompt.ids), self._pack_tokens):
            if settings.kl and len(group.reference) < len(group.rows):
                with untouched(model):
                    group.reference += logprobs_by_row(model, rows, settings.temperature)
            found = logprobs_by_row(model, rows, settings.temperature)
            if len(group.old) < len(group.rows):
                group.old += [logprobs.detach() for logprobs in found]
            loss: Any = 0.0
            for reply, logprobs in enumerate(found, start=done):
                cost, kl, clipped = self._costs(logprobs, group, reply)
                loss = loss + cost.sum() * self._weight(group.lengths[reply], tokens, groups)
                totals["kl"] += kl
                totals["clipped"] += clipped
            self.share.backward(model, loss)
            totals["loss"] += loss.item()
            done += len(rows)
        return totals

    def _costs(self, logprobs: Any, group: Group, reply: int) -> tuple[Any, float, float]:
        """Cost of each token of a reply; its divergence and the number of cut tokens, summed."""
        import torch

        settings, advantage = self.settings, group.advantages[reply]
        ratio = torch.exp(logprobs - group.old[reply])
        cut = ratio.clamp(1 - settings.clip, 1 + settings.clip)
        cost = -torch.minimum(ratio * advantage, cut * advantage)
        clipped = (cut * advantage < ratio * advantage).sum().item()
        if not settings.kl:
            return cost, 0.0, clipped
        gained = group.reference[reply] - logprobs
        divergence = torch.exp(gained) - gained - 1
        return cost + settings.kl * divergence, divergence.sum().item(), clipped

    def _weight(self, length: int, tokens: int, groups: int) -> float:
        """Of a token of a reply of `length` tokens in a step of `tokens` in `groups`."""
        replies = groups * self.settings.group_size
        by_rule = {
            "grpo": replies * length,
            "dapo": tokens,
            "dr_grpo": replies * self.settings.max_new_tokens,
        }
        return 1 / by_rule[self.settings.normalisation]


def _fill_gradients(model: Any) -> None:
    """Where nothing was learnt gradients are 0, not absent: a step is one for every process and every scaler."""
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def repeated(batches: Sequence[Sequence[Prompt]], updates: int) -> list[Sequence[Prompt]]:
    """Each batch `updates` times in a row: one entry an optimiser step."""
    return [batch for batch in batches for _ in range(updates)]


def advantages(rewards: Sequence[float], scale: bool) -> list[float]:
    """Of a group: what each reward is above the mean, in sample standard deviations where `scale`."""
    mean = statistics.fmean(rewards)
    if len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    divisor = statistics.stdev(rewards) + SMALLEST_DEVIATION if scale else 1.0
    return [(reward - mean) / divisor for reward in rewards]


def measures_of(groups: Sequence[Group], number: int) -> dict[str, float]:
    """Over `number` groups, of which these are all or one process's: `reward`, the mean; `reward_std`, the mean of the
    groups' standard deviations; `no_signal`, the share of groups whose rewards are all equal; `reply_tokens`, the mean;
    `truncated`, the share of replies that the limit ended."""

    def mean(value: Callable[[Group], float]) -> float:
        return sum(map(value, groups)) / number

    return {
        "reward": mean(lambda group: statistics.fmean(group.rewards)),
        "reward_std": mean(lambda group: statistics.stdev(group.rewards)),
        "no_signal": mean(lambda group: len(set(group.rewards)) == 1),
        "reply_tokens": mean(lambda group: statistics.fmean(group.lengths)),
        "truncated": mean(lambda group: statistics.fmean(group.truncated)),
    }
