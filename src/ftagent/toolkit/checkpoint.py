"""Checkpoints from which a killed training goes on as if it had not been killed. Tensors only, no pickle."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftagent.toolkit.files import MARKER, is_complete, mark_complete

TENSORS = "state.safetensors"
PROGRESS = "progress.json"


@dataclass
class Progress:
    """Where a training stands. `measures` are those of steps that are not in metrics.jsonl yet."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    measures: tuple[dict[str, float], ...] = ()


def save_checkpoint(folder: Path, identity: str, progress: Progress, model: Any, optimizer: Any) -> None:
    """Write `folder`/step-N; older ones go once it is complete."""
    from safetensors.torch import save_file

    target = folder / f"step-{progress.step:08d}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    save_file(_tensors(model, optimizer), target / TENSORS)
    (target / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
    mark_complete(target, identity, [TENSORS, PROGRESS])
    for older in folder.glob("step-*"):
        if older != target:
            shutil.rmtree(older, ignore_errors=True)


def load_checkpoint(folder: Path, identity: str, model: Any, optimizer: Any) -> Progress:
    """Restore the newest complete checkpoint of `identity`; without one nothing changes and step is 0."""
    from safetensors.torch import load_file

    for candidate in sorted(folder.glob("step-*"), reverse=True):
        if (candidate / MARKER).is_file() and is_complete(candidate, identity):
            _restore(load_file(candidate / TENSORS), model, optimizer)
            values = json.loads((candidate / PROGRESS).read_text(encoding="utf-8"))
            return Progress(**{**values, "measures": tuple(values["measures"])})
    return Progress()


def _trainable(model: Any) -> dict[str, Any]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _tensors(model: Any, optimizer: Any) -> dict[str, Any]:
    import torch

    tensors = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    for name, parameter in _trainable(model).items():
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value.contiguous()
    return tensors


def _restore(tensors: dict[str, Any], model: Any, optimizer: Any) -> None:
    import torch

    parameters = _trainable(model)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight/{name}"])
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, entry, name = key.split("/", 2)
            parameter = parameters[name]
            # Step counters stay on the CPU in float32; moments live beside their parameter.
            moved = value if value.dim() == 0 else value.to(parameter.device)
            optimizer.state[parameter][entry] = moved
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
