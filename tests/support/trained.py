"""Folders as a training leaves them, written with the real markers. Nothing in them can be loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftagent.toolkit.files import mark_complete

IDENTITY = "0" * 64


def save_adapter(folder: Path, base: str = "base-model", **files: dict[str, Any]) -> Path:
    """An adapter with a marker. `files`: further JSON files by name without `.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))
    (folder / "adapter_model.safetensors").write_bytes(b"\0" * 2000)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    names = [path.name for path in folder.iterdir() if path.is_file() and path.name != "complete.json"]
    mark_complete(folder, IDENTITY, names)
    return folder


def save_training(folder: Path) -> Path:
    """Steps 10 (the best), 20, 30 and the result of step 40, all complete."""
    for step, loss, validation in ((10, 2.0, 1.5), (20, 1.0, 1.75), (30, 0.75, 2.0)):
        progress = {"step": step, "tokens": 100 * step, "seconds": 1.0, "measures": [], "loss": loss}
        checkpoint = folder / "checkpoints" / f"step-{step:08d}"
        save_adapter(checkpoint, progress={**progress, "validation_loss": validation})
    best = {"step": 10, "metric": "validation_loss", "value": 1.5}
    (folder / "checkpoints" / "best.json").write_text(json.dumps(best))
    lines = [{"step": 40, "loss": 0.5, "tokens": 4000}, {"step": 40, "validation_loss": 2.5}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 41, "lo')
    save_adapter(folder, summary={"steps": 40, "tokens": 4000})
    return folder
