"""What a trial of the task `stsb` needs. Rough on purpose."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ftagent.core.context import Hardware
from ftagent.core.types import Estimate
from ftagent_hpo.stsb_config import StsbConfig
from ftagent_hpo.stsb_data import Pair
from ftagent_llm.models import ResolvedModel

CORE_FLOPS, GPU_FLOPS = 7.5e10, 1e13
"""Nominal operations a second of one core and of a GPU on short sentences (measured with MiniLM on two cores)."""
START_SECONDS = 5.0
CHARACTERS_PER_TOKEN = 4.0
SPECIAL_TOKENS = 2
PROCESS_MB = 700.0
ADAM_BYTES = 16
"""Per weight: itself, its gradient and two moments."""


def estimate_stsb(
    model: ResolvedModel, config: StsbConfig, training: Sequence[Pair], held_out: Sequence[Pair],
    measured: Sequence[Pair], hardware: Hardware,
) -> Estimate:  # fmt: skip
    """Kaplan et al. 2020: 2 operations per weight and token, 6 in training; weights of the vocabulary do none."""
    width, layers, vocabulary = _shape(model)
    weights = max(1, model.parameters - width * vocabulary)
    steps = config.num_train_epochs * -(-len(training) // config.train_batch_size)
    looks = -(-steps // config.eval_steps) if config.eval_steps else 0
    tokens = 3 * config.num_train_epochs * _tokens(training) + looks * _tokens(held_out) + _tokens(measured)
    rate = GPU_FLOPS * len(hardware.gpus) if hardware.gpus else CORE_FLOPS * max(1, hardware.cpus)
    seconds = 2 * weights * tokens / rate + START_SECONDS
    longest = _tokens(training) / max(1, 2 * len(training)) * 2 * config.train_batch_size
    memory = PROCESS_MB + (ADAM_BYTES * model.parameters + longest * layers * width * 100) / 2**20
    disk = 100 + 6 * 4 * model.parameters / 2**20
    return Estimate(disk, memory, seconds, (f"about {seconds:.0f} s per trial of {len(training)} pairs",))


def _tokens(pairs: Sequence[Pair]) -> float:
    texts = [text for pair in pairs for text in (pair.sentence1, pair.sentence2)]
    return sum(len(text) for text in texts) / CHARACTERS_PER_TOKEN + SPECIAL_TOKENS * len(texts)


def _shape(model: ResolvedModel) -> tuple[int, int, int]:
    """Width, layers and vocabulary; 1, 1 and 0 where the model does not tell."""
    try:
        found = json.loads((model.path / "config.json").read_text(encoding="utf-8"))
        return int(found["hidden_size"]), int(found["num_hidden_layers"]), int(found["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return 1, 1, 0
