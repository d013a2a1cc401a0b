"""The llm scenario over a model that has a shape and no weights worth the name: for its brief and its stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftagent.core.context import Hardware, ScenarioContext
from ftagent_llm.options import LlmOptions
from ftagent_llm.scenario import LlmScenario

BENCHMARK = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2"


def tiny_scenario(folder: Path, **context: Any) -> LlmScenario:
    """Two-term sums, 200 training rows, 30 items per split, a model of 30 layers named tiny-model."""
    model = folder / "tiny-model"
    model.mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text(json.dumps({"num_hidden_layers": 30}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [10, 10], "data_offsets": [0, 400]}}).encode()
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(400))
    values = {
        "files_path": folder / "files", "benchmark": BENCHMARK, "base_model": str(model), "limit": 30,
        "hardware": Hardware(cpus=2, memory_mb=8192), **context,
    }  # fmt: skip
    return LlmScenario(LlmOptions(train_rows=200), ScenarioContext(**values))
