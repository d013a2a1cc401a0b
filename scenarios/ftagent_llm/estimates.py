"""What a run needs, from the size of the model and of the work. Rough on purpose: it refuses what cannot
fit."""

from __future__ import annotations

from ftagent.core.context import Hardware
from ftagent.core.types import Estimate
from ftagent.evaluation.prediction import Decoding
from ftagent_llm.options import LlmOptions

TRAIN_FLOPS = 2.5e11
PREDICT_FLOPS = 1.5e11
"""Nominal operations that one CPU core does a second, training adapters on short rows and predicting in
batches (measured with the 135M model on two cores; frozen layers, shared prompts and answers that end early
are why they exceed what the core can do)."""
GPU_FLOPS = 2e13
START_SECONDS = 12.0
"""Imports and loading, per command that uses torch."""
PROMPT_TOKENS = 100
PROCESS_MB = 1200.0


def estimate_run(parameters: int, items: int, decoding: Decoding, options: LlmOptions, hardware: Hardware) -> Estimate:
    """Kaplan et al. 2020: 6 operations per weight and training token, 2 per predicted one; bytes per
    weight: 4 to load, 16 to train in full with Adam. `parameters` 0 (unknown) estimates the rest alone."""
    full = "full" in options.methods
    gpu = bool(hardware.gpus) and options.device != "cpu"
    devices = len(hardware.gpus) if gpu else max(1, hardware.cpus)
    training, predicting = (GPU_FLOPS, GPU_FLOPS) if gpu else (TRAIN_FLOPS, PREDICT_FLOPS)
    predicted = items * decoding.samples * (PROMPT_TOKENS + decoding.max_new_tokens)
    work = 6 * parameters * options.train_tokens / training + 2 * parameters * predicted / predicting
    seconds = work / devices + 2 * START_SECONDS
    weights_mb = 4 * parameters / 2**20
    activations_mb = 0.02 * options.pack_tokens * (parameters / 1e6) ** 0.5 * 4
    memory = PROCESS_MB + (4 * weights_mb if full else 1.3 * weights_mb) + activations_mb
    disk = 200.0 + (3 * weights_mb if full else 0.2 * weights_mb)
    notes = [f"about {seconds / 60:.1f} minutes per loop for {options.train_tokens} training tokens and {items} items"]
    if full:
        notes.append("full training keeps all weights of the best experiment and its challengers on disk")
    return Estimate(disk_mb=disk, memory_mb=memory, seconds_per_loop=seconds, notes=tuple(notes))
