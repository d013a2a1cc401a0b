"""Whether a merged model says what the base model says with the adapter beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PROBES: tuple[tuple[str, str], ...] = (
    ("What is the capital of France?", "The capital of France is Paris, on the river Seine."),
    ("Anna has 3 boxes of 12 eggs. She sells 7. How many are left?", "3 * 12 = 36. 36 - 7 = 29. The answer is 29."),
    ("Write a function that adds two numbers.", "def add(a, b):\n    return a + b\n"),
    ("Translate to German: Good morning, my friend.", "Guten Morgen, mein Freund."),
    ("水的化学式是什么?", "水的化学式是 H2O。"),
    ("List three primary colours as JSON.", '{"colours": ["red", "yellow", "blue"]}'),
)
"""Questions and answers: instructions, arithmetic, code, other languages and scripts, JSON."""
Logits = list[Any]
"""Of each probe, a float32 tensor (tokens, vocabulary) on the CPU."""


@dataclass(frozen=True)
class Tolerance:
    """What rounding may do to logits. `difference` is a share of the largest logit; `kl` is in nats a token."""

    difference: float
    kl: float
    agreement: float


TOLERANCES = {
    "float32": Tolerance(5e-4, 1e-6, 0.99),
    "float16": Tolerance(3e-2, 1e-3, 0.95),
    "bfloat16": Tolerance(2e-1, 1e-2, 0.90),
}
"""By the dtype of the merged weights, which keep 24, 11 and 8 bits of each number: about twice to ten times what
rounding did to a model of random weights, the worst case; trained models stay far below."""


@dataclass(frozen=True)
class Proof:
    """Over all tokens of all probes. `kl`: mean of KL(adapter | merged) in nats; `agreement`: share of equal top-1.

    `adapter_kl`: mean of KL(adapter | base), which tells how much there was to merge.
    """

    dtype: str
    tokens: int
    max_difference: float
    largest_logit: float
    kl: float
    max_kl: float
    agreement: float
    adapter_kl: float

    @property
    def problem(self) -> str:
        """ "" where the figures are within the tolerance of the dtype, else what is not."""
        limit = TOLERANCES[self.dtype]
        figures = (self.max_difference, self.kl, self.largest_logit)
        # Of several numbers, max() may pass over one that is NaN; their mean cannot.
        if not all(math.isfinite(figure) for figure in figures):
            return f"its logits are not finite in {self.dtype}"
        if self.max_difference > limit.difference * self.largest_logit:
            allowed = limit.difference * self.largest_logit
            return f"logits differ by {self.max_difference:.3g}, {allowed:.3g} is allowed in {self.dtype}"
        if self.kl > limit.kl:
            return f"KL is {self.kl:.3g} nats a token, {limit.kl:g} is allowed in {self.dtype}"
        if self.agreement < limit.agreement:
            return f"top tokens agree at {self.agreement:.1%}, {limit.agreement:.0%} is needed in {self.dtype}"
        return ""

    @property
    def note(self) -> str:
        """ "" unless rounding changed nearly as much as the adapter does."""
        if self.kl <= self.adapter_kl / 2:
            return ""
        return (
            f"rounding to {self.dtype} moves the model by a KL of {self.kl:.3g}, the adapter by {self.adapter_kl:.3g}: "
            "merge to float32 to keep what the adapter learned"
        )

    def document(self) -> dict[str, Any]:
        """As JSON, with the tolerance that was applied."""
        return {**asdict(self), "tolerance": asdict(TOLERANCES[self.dtype])}


def probe_ids(tokenizer: Any) -> list[list[int]]:
    """Token ids of each probe, as a conversation where there is a chat template, else as plain text."""
    if not tokenizer.chat_template:
        return [tokenizer.encode(f"{question}\n{answer}") for question, answer in PROBES]
    return [
        list(tokenizer.apply_chat_template(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            tokenize=True, return_dict=False,
        ))
        for question, answer in PROBES
    ]  # fmt: skip


def logits_of(model: Any, probes: Sequence[list[int]]) -> Logits:
    """What `model` says after each token of each probe."""
    import torch

    with torch.inference_mode():
        return [
            model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0].float().cpu()
            for ids in probes
        ]


def logits_with_adapter(base: Path, adapter: Path, probes: Sequence[list[int]]) -> tuple[Logits, Logits]:
    """In float32: with the adapter, not merged, what the merged model has to say; and without. Raises ToolkitError."""
    from peft import PeftModel

    from ftagent.toolkit.errors import ToolkitError
    from ftagent.toolkit.models import load_model

    model, _ = load_model(str(base), "float32", "cpu")
    try:
        plain = logits_of(model, probes)
        return logits_of(PeftModel.from_pretrained(model, str(adapter)).eval(), probes), plain
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ToolkitError(f"adapter {str(adapter)!r} cannot be used: {' '.join(str(error).split())[:300]}") from error


def compare(expected: Logits, found: Logits, plain: Logits, dtype: str) -> Proof:
    """The figures over all tokens: with the adapter, merged, and the base alone."""
    import torch

    divergence = torch.cat([_divergence(one, other) for one, other in zip(expected, found, strict=True)])
    agreement = torch.cat([one.argmax(-1) == other.argmax(-1) for one, other in zip(expected, found, strict=True)])
    shift = torch.cat([_divergence(one, other) for one, other in zip(expected, plain, strict=True)])
    return Proof(
        dtype,
        tokens=len(divergence),
        max_difference=max(float((one - other).abs().max()) for one, other in zip(expected, found, strict=True)),
        largest_logit=max(float(one.abs().max()) for one in expected),
        kl=float(divergence.mean()),
        max_kl=float(divergence.max()),
        agreement=float(agreement.float().mean()),
        adapter_kl=float(shift.mean()),
    )


def _divergence(expected: Any, found: Any) -> Any:
    """KL of each token in nats; rounding may leave one of nothing slightly below zero."""
    first, second = expected.log_softmax(-1), found.log_softmax(-1)
    return (first.exp() * (first - second)).sum(-1).clamp_min(0)
