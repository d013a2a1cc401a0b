"""Peak memory of real trainings and generations of SmolLM2, against what `check-model` estimates."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.checking import Options, check_folder
from ftagent.toolkit.checking.memory import MIB, estimate, shape_of
from ftagent_llm.models import resolve_model

pytestmark = [pytest.mark.model, pytest.mark.timeout(3600)]
RESULTS = Path(__file__).parents[2] / "docs/acceptance"
TOLERANCE = 0.2
RANK = 16
RUNS: list[tuple[str, str, int, int, bool]] = [
    ("inference", "float32", 1, 1024, False),
    ("inference", "float32", 4, 1024, False),
    ("lora", "float32", 1, 256, False),
    ("lora", "float32", 2, 512, False),
    ("lora", "float32", 2, 512, True),
    ("dora", "float32", 1, 256, False),
    ("full", "float32", 1, 256, False),
    ("full", "float32", 2, 512, False),
    ("full", "float32", 2, 512, True),
    ("lora", "bfloat16", 1, 256, False),
    ("full", "bfloat16", 1, 256, False),
]
"""(method, dtype, batch, length, gradient checkpointing)"""
MEASURE = """
import json, re, sys
path, method, dtype, batch, length, checkpointing, rank = json.loads(sys.argv[1])
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), attn_implementation="sdpa")
for parameter in model.parameters():
    parameter.data = parameter.data.clone()  # in memory of its own, not in the mapped file
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here: pages of the file are given back
ids = torch.randint(0, 40000, (batch, length))
if method == "inference":
    with torch.no_grad():
        seen = model.eval()(ids[:, :-1], logits_to_keep=1, use_cache=True).past_key_values
        model(ids[:, -1:], past_key_values=seen, logits_to_keep=1)
else:
    if method != "full":
        settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", use_dora=method == "dora",
                              task_type="CAUSAL_LM")
        model = get_peft_model(model, settings).get_base_model()
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        logits = model(ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids.flatten())
        loss.backward()
        optimizer.step()
        del logits, loss
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024)
"""


def test_estimates_hold(pytestconfig: pytest.Config) -> None:
    """Each run in a process of its own; the record is what the documentation shows."""
    assert pytestconfig.cache is not None
    folder = resolve_model("smollm2-135m", pytestconfig.cache.mkdir("ftagent_files")).path
    shape = shape_of(check_folder(folder, Options(memory=False)).model)
    rows: list[dict[str, Any]] = []
    for method, dtype, batch, length, checkpointing in RUNS:
        size = 4 if dtype == "float32" else 2
        found = estimate(shape, method, batch * length, size, "cpu", RANK, checkpointing)  # type: ignore[arg-type]
        rows.append({
            "method": method, "dtype": dtype, "batch": batch, "length": length,
            "gradient_checkpointing": checkpointing, "estimate_mb": round(found.total / MIB),
            "peak_mb": round(_measure(folder, method, dtype, batch, length, checkpointing)),
        })  # fmt: skip
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    machine = f"{len(os.sched_getaffinity(0))} cores, no GPU, {platform.system()}; {libraries}"
    record = {"model": "smollm2-135m", "machine": machine, "rank": RANK, "measured": rows}
    (RESULTS / "memory.json").write_text(json.dumps(record, indent=1) + "\n")
    assert [row for row in rows if abs(row["estimate_mb"] / row["peak_mb"] - 1) > TOLERANCE] == []


def _measure(folder: Path, *run: Any) -> float:
    """Peak resident memory of a process in MiB, libraries included."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, json.dumps([str(folder), *run, RANK])],
        capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])
