"""Estimates of memory, against what was measured and by what they must not do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.checking.machine import Device, needs
from ftagent.toolkit.checking.memory import METHODS, MIB, Estimate, Method, Shape, estimate, shape_of

MEASURED = Path(__file__).parents[3] / "docs/acceptance/memory.json"
TOLERANCE = 0.2
SMOLLM2 = Shape(
    parameters=134_515_008, linear_parameters=106_168_320, layers=30, hidden=576, queries=576, keys=192, mlp=1536,
    vocabulary=49152, inputs=4992, outputs=5184, linears=7,
)  # fmt: skip


def total(method: Method, tokens: int, **changes: Any) -> int:
    values: dict[str, Any] = {"size": 4, "device": "cpu", "rank": 16, **changes}
    return estimate(SMOLLM2, method, tokens, **values).total


@pytest.mark.model
def test_the_shape_of_smollm2(smollm2: Path) -> None:
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(AutoConfig.from_pretrained(smollm2))
    assert shape_of(model) == SMOLLM2
    # As PEFT counts it for LoRA of rank 16 on every linear layer.
    assert SMOLLM2.adapter_parameters(16) == 4_884_480


def test_estimates_are_within_the_tolerance_of_what_was_measured() -> None:
    """The page names peak memory of real trainings and generations of SmolLM2."""
    rows = json.loads(MEASURED.read_text())["measured"]
    assert {row["method"] for row in rows} >= {"inference", "full", "lora", "dora"}
    for row in rows:
        size = 4 if row["dtype"] == "float32" else 2
        found = total(
            row["method"], row["batch"] * row["length"], size=size, checkpointing=row["gradient_checkpointing"]
        )
        assert abs(found / MIB / row["peak_mb"] - 1) < TOLERANCE, row


MEASURE = """
import re, sys
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, attn_implementation="sdpa")
for parameter in model.parameters():
    parameter.data = parameter.data.clone()
optimizer = torch.optim.AdamW(model.train().parameters(), fused=True)
for _ in range(2):
    ids = torch.randint(0, 40000, (1, int(sys.argv[2])))
    optimizer.zero_grad(set_to_none=True)
    logits = model(ids, use_cache=False).logits
    torch.nn.functional.cross_entropy(logits[0], ids[0]).backward()
    optimizer.step()
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024)
"""


@pytest.mark.model
@pytest.mark.slow
def test_a_full_training_takes_what_was_estimated(smollm2: Path) -> None:
    tokens = 128
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(smollm2), str(tokens)],
        capture_output=True, text=True, timeout=250, env={**os.environ, "OMP_NUM_THREADS": "2"}, check=True,
    )  # fmt: skip
    peak = float(done.stdout.split()[-1])
    assert abs(total("full", tokens) / MIB / peak - 1) < TOLERANCE, peak


def test_what_must_hold_of_any_estimate() -> None:
    for method in METHODS:
        assert total(method, 1024) < total(method, 2048)
        assert total(method, 1024, size=2) < total(method, 1024)
    for method in METHODS[1:]:
        assert total(method, 4096, checkpointing=True) < total(method, 4096)
        assert total("inference", 1024) < total(method, 1024)
    assert total("qlora", 512) < total("lora", 512) < total("dora", 512)
    # With few tokens, states dominate: full training pays for all parameters.
    assert total("lora", 64) < total("full", 64)
    assert estimate(SMOLLM2, "full", 64, 4, "cpu", 16).optimizer == 8 * SMOLLM2.parameters


def test_parts_are_those_of_the_formulas() -> None:
    found = estimate(SMOLLM2, "full", 10, 4, "cuda", 16)
    numbers = 6 * 576 + 2 * 576 + 2 * 192 + 4 * 1536
    assert found == Estimate(
        weights=134_515_008 * 4, gradients=134_515_008 * 4, optimizer=134_515_008 * 8,
        activations=30 * 10 * numbers * 4, logits=10 * 49152 * 12, libraries=found.libraries,
    )  # fmt: skip
    assert estimate(SMOLLM2, "inference", 10, 4, "cpu", 16).cache == 10 * 2 * 30 * 192 * 4
    four_bits = estimate(SMOLLM2, "qlora", 10, 2, "cuda", 16)
    lora = estimate(SMOLLM2, "lora", 10, 2, "cuda", 16)
    assert lora.weights - four_bits.weights == round(SMOLLM2.linear_parameters * (2 - 0.516))


def test_what_does_not_fit_says_what_would() -> None:
    large = replace(SMOLLM2, parameters=8_000_000_000, linear_parameters=7_000_000_000, layers=32, hidden=4096,
                    queries=4096, keys=1024, mlp=14336, vocabulary=128256, inputs=40960, outputs=47104)  # fmt: skip
    gpu = Device("cuda", "a GPU of 24 GiB", 24 * 2**30, 2)
    found = {need.method: need for need in needs(large, [1024], 8, gpu, 16)}
    assert found["inference"].fits
    assert found["full"].advice == "LoRA, or a smaller model"
    assert found["lora"].advice.startswith("gradient checkpointing and a batch of ")
    assert not found["qlora"].fits
    batch = int(found["qlora"].advice.split("a batch of ")[1].split(" ")[0])
    assert 1 <= batch < 8
    fitting = {need.method: need for need in needs(large, [1024], batch, gpu, 16)}
    assert fitting["qlora"].fits
    assert not {need.method: need for need in needs(large, [1024], batch + 1, gpu, 16)}["qlora"].fits
    ram = Device("cpu", "RAM", 24 * 2**30, 4)
    assert {need.method: need.advice for need in needs(SMOLLM2, [64], 1, ram, 16)}["qlora"].startswith("needs a GPU")
