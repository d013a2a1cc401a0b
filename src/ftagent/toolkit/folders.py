"""What a folder is, what it holds and which model it came from, read from its small files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

Kind = Literal["run", "training", "adapter", "model"]
Holds = Literal["adapter", "weights", "state"]
"""`state` is what a training goes on from and nothing else."""

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
CHECKPOINTS = "checkpoints"


def kind_of(folder: Path) -> Kind | None:
    """What `folder` is; None where it holds nothing to load."""
    if (folder / "journal.jsonl").is_file():
        return "run"
    # What a run selected was copied there whole; it is no training that could have been cut short.
    selected = folder.name == "best" and (folder.parent / "run.json").is_file()
    if not selected and ((folder / CHECKPOINTS).is_dir() or (folder / "metrics.jsonl").is_file()):
        return "training"
    if (folder / ADAPTER_FILES[0]).is_file():
        return "adapter"
    return "model" if (folder / "config.json").is_file() else None


def what_it_holds(folder: Path) -> Holds:
    """Whether an adapter or a whole model could be loaded from `folder`."""
    if all((folder / name).is_file() for name in ADAPTER_FILES):
        return "adapter"
    weights = [
        path for path in folder.glob("*.safetensors") if path.name not in ("state.safetensors", ADAPTER_FILES[1])
    ]
    return "weights" if weights and (folder / "config.json").is_file() else "state"


def base_of(folder: Path) -> str:
    """The base model that a run, a training or an adapter names; "" where it names none."""
    if asked := read_object(folder / "run.json").get("request"):
        return str(asked.get("base_model") or "") if isinstance(asked, dict) else ""
    around = [folder, folder.parent.parent] if folder.parent.name == CHECKPOINTS else [folder]
    if folder.name == "best" and (folder.parent / "run.json").is_file():
        return base_of(folder.parent)
    for place in around:
        if name := read_object(place / ADAPTER_FILES[0]).get("base_model_name_or_path"):
            return str(name)
        if name := _read_yaml(place / "train.yaml").get("model_path"):
            return str(name)
    return ""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none that reads."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}
