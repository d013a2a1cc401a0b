"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290).

With π the model, π₀ the model before training, and for a pair (chosen y⁺, rejected y⁻)
h = log π(y⁺)/π₀(y⁺) − log π(y⁻)/π₀(y⁻), the loss is one of

- sigmoid: −(1 − ε) log σ(βh) − ε log σ(−βh), ε the label smoothing (conservative DPO, Mitchell 2023)
- hinge: max(0, 1 − βh) (SLiC, Zhao et al. 2023, arXiv 2305.10425)
- ipo: (h − 1/(2β))² with log-probabilities averaged over a reply's tokens (Azar et al. 2023, arXiv 2310.12036)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ftagent.toolkit.errors import ToolkitError, full_storage_is_told
from ftagent.toolkit.files import fingerprint, write_atomically
from ftagent.toolkit.objectives.replies import chunks, common_length, evaluating, logprobs_by_row, untouched
from ftagent.toolkit.share import ALONE, Share
from ftagent.toolkit.tokens import Row

Loss = Literal["sigmoid", "hinge", "ipo"]
MEASURES = ("loss", "margin", "accuracy", "chosen_logprob", "rejected_logprob", "chosen_reward", "rejected_reward")


@dataclass(frozen=True)
class PreferenceRows:
    """A pair as tokens; labels are those of the replies.

    `reference`: summed log-probabilities in nats of (chosen, rejected) under the model before training.
    """

    chosen: Row
    rejected: Row
    reference: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class PreferenceObjective:
    """Over batches of `PreferenceRows` with their reference. `pack_tokens` bounds one forward pass; 0: a row each."""

    beta: float
    loss: Loss
    label_smoothing: float
    pack_tokens: int
    share: Share = ALONE

    def backward(self, model: Any, batch: Sequence[PreferenceRows], step: int) -> dict[str, float]:
        """The measures are means over pairs; see `measure`."""
        return self._measure(model, self.share.of(batch), len(batch), gradient=True)

    def measure(self, model: Any, batch: Sequence[PreferenceRows]) -> dict[str, float]:
        """Without gradients: `loss`; `margin`, β·h in nats; `accuracy`, the share of pairs with a margin above 0;
        `chosen_logprob`, `rejected_logprob`, summed over a reply; `chosen_reward`, `rejected_reward`, β times what
        they gained over the reference."""
        import torch

        with evaluating(model), torch.no_grad():
            return self._measure(model, batch, len(batch), gradient=False)

    def tokens(self, batch: Sequence[PreferenceRows]) -> int:
        return sum(len(pair.chosen.ids) + len(pair.rejected.ids) for pair in batch)

    def held_out_loss(self, model: Any, batches: Sequence[Sequence[PreferenceRows]]) -> float:
        """The mean over pairs, over all of `batches`."""
        pairs = [pair for batch in batches for pair in batch]
        return self.measure(model, pairs)["loss"]

    def _measure(self, model: Any, pairs: Sequence[PreferenceRows], number: int, gradient: bool) -> dict[str, float]:
        """Sums over `pairs`, divided by `number`."""
        totals = dict.fromkeys(MEASURES, 0.0)
        for pair in pairs:
            chosen, rejected = _pair_logprobs(model, pair, self.pack_tokens)
            loss = self._loss(chosen, rejected, pair) / number
            if gradient:
                self.share.backward(model, loss)
            chosen_sum, rejected_sum = chosen.sum().item(), rejected.sum().item()
            gains = (self.beta * (chosen_sum - pair.reference[0]), self.beta * (rejected_sum - pair.reference[1]))
            measures = {
                "margin": gains[0] - gains[1],
                "accuracy": float(gains[0] > gains[1]),
                "chosen_logprob": chosen_sum,
                "rejected_logprob": rejected_sum,
                "chosen_reward": gains[0],
                "rejected_reward": gains[1],
            }
            totals["loss"] += loss.item()
            for name, value in measures.items():
                totals[name] += value / number
        return totals

    def _loss(self, chosen: Any, rejected: Any, pair: PreferenceRows) -> Any:
        """Of one pair, from the log-probabilities of its labels."""
        from torch.nn.functional import logsigmoid

        gained = [chosen.sum() - pair.reference[0], rejected.sum() - pair.reference[1]]
        if self.loss == "ipo":
            averaged = gained[0] / len(chosen) - gained[1] / len(rejected)
            return (averaged - 1 / (2 * self.beta)) ** 2
        scaled = self.beta * (gained[0] - gained[1])
        if self.loss == "hinge":
            return (1 - scaled).clamp(min=0)
        smoothing = self.label_smoothing
        return -(1 - smoothing) * logsigmoid(scaled) - smoothing * logsigmoid(-scaled)


def with_reference(
    model: Any, pairs: Sequence[PreferenceRows], pack_tokens: int, cache: Path | None, identity: str
) -> list[PreferenceRows]:
    """`pairs` with the log-probabilities that `model` gives them with its adapters off.

    To be called before the first step, and before a checkpoint is loaded where no adapters are trained. `cache`, a
    file, keeps the numbers for the training `identity`, so that a resumed one has exactly those that it began with.
    Raises ToolkitError where it cannot be written.
    """
    key = fingerprint([identity, [[pair.chosen.ids, pair.rejected.ids] for pair in pairs]])
    found = _cached(cache, key, len(pairs)) if cache else None
    if found is None:
        with untouched(model):
            both = [_pair_logprobs(model, pair, pack_tokens) for pair in pairs]
        found = [(chosen.sum().item(), rejected.sum().item()) for chosen, rejected in both]
        if cache:
            _keep(cache, {"identity": key, "logprobs": found})
    return [replace(pair, reference=reference) for pair, reference in zip(pairs, found, strict=True)]


def _cached(path: Path, identity: str, number: int) -> list[tuple[float, float]] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(values, Mapping) or values.get("identity") != identity or len(values["logprobs"]) != number:
        return None
    return [(float(chosen), float(rejected)) for chosen, rejected in values["logprobs"]]


def _keep(path: Path, values: Mapping[str, Any]) -> None:
    with full_storage_is_told(str(path), lambda: "free some space, and the same command goes on"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(values) + "\n")
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise ToolkitError(f"{path}: cannot be written: {error.strerror}") from error


def _pair_logprobs(model: Any, pair: PreferenceRows, pack_tokens: int) -> tuple[Any, Any]:
    rows = [pair.chosen, pair.rejected]
    found = [
        logprobs
        for group in chunks(rows, common_length(rows), pack_tokens)
        for logprobs in logprobs_by_row(model, group)
    ]
    return found[0], found[1]
