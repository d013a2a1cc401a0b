"""Batched generation against the library's own, one prompt at a time, for models that attend in different ways."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ftagent.toolkit.config import PredictConfig, validate_config
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.generate import Draft, generate
from ftagent.toolkit.kernels.select import speed_up

from .architectures import SIZES, small_model


def prompts(shared: int) -> list[list[int]]:
    generator = random.Random(4)
    beginning = [generator.randrange(3, 300) for _ in range(shared)]
    return [beginning + [generator.randrange(3, 300) for _ in range(length)] for length in (3, 9, 20)]


@pytest.mark.parametrize("shared", [0, 14])
@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3"])
def test_a_layer_sees_its_window_alone(name: str, shared: int) -> None:
    """Prompts are longer than the window, and of different lengths, so that padding lies inside it."""
    import torch

    model = small_model(name, "eager" if name == "gemma2" else "sdpa", sliding_window=8)
    values = {"model": "m", "questions": "q", "output": "o", "max_new_tokens": 10}
    drafts = [Draft(str(number), 0, ids) for number, ids in enumerate(prompts(shared))]
    due = []
    for ids in prompts(shared):
        asked = torch.tensor([ids])
        options = {"attention_mask": torch.ones_like(asked), "do_sample": False, "eos_token_id": 299}
        due.append(model.generate(asked, max_new_tokens=10, **options)[0, len(ids) :].tolist())
    speed_up(model.requires_grad_(False))
    generate(model, drafts, [], validate_config(values, PredictConfig, ""), lambda ended: None)
    for draft, expected in zip(drafts, due, strict=True):
        assert draft.new[: len(expected)] == expected


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("Lfm2Config", {"layer_types": ["conv", "full_attention", "conv"]}),
        ("MambaConfig", {"num_hidden_layers": 2}),
    ],
)
def test_a_model_that_does_more_than_attend_is_refused(kind: str, values: dict[str, Any]) -> None:
    import transformers

    config = getattr(transformers, kind)(**{**SIZES, **values})
    build: Any = transformers.AutoModelForCausalLM.from_config
    model = build(config).eval()
    wanted = validate_config({"model": "m", "questions": "q", "output": "o"}, PredictConfig, "")
    with pytest.raises(ToolkitError, match="cannot generate here: its layers are") as error:
        generate(model, [Draft("a", 0, [5, 6])], [], wanted, lambda ended: None)
    assert "\n" not in str(error.value)
