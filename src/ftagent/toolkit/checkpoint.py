"""Checkpoints from which a killed training goes on as if it had not been killed. Tensors only, no pickle.

`step-N/` holds the adapter or the weights as the final result would, `state.safetensors` (trained weights and the
optimiser's moments, exactly) and `progress.json`. Random numbers follow from seed and step, so none are kept.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftagent.toolkit.errors import full_storage_is_told
from ftagent.toolkit.files import MARKER, is_complete, mark_complete, write_atomically
from ftagent.toolkit.optimizer import Optimizer
from ftagent.toolkit.sharding import put, whole

TENSORS = "state.safetensors"
PROGRESS = "progress.json"
BEST = "best.json"
METRIC = "validation_loss"

Write = Callable[[Path], None]
"""Writes the adapter or the weights into a folder, in a form that loads."""


@dataclass
class Progress:
    """Where a training stands. `measures` are those of steps that are not in metrics.jsonl yet.

    `loss` and `validation_loss` are the last ones known. `best_step` has the least validation loss, `best_value`;
    `stale` validations came after it. `scale` is what float16 multiplies losses by.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    measures: tuple[dict[str, float], ...] = ()
    loss: float | None = None
    validation_loss: float | None = None
    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0
    scale: float | None = None


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` is."""
    return folder / f"step-{step:08d}"


def save_checkpoint(
    folder: Path, identity: str, progress: Progress, tensors: Mapping[str, Any], write: Write | None = None
) -> None:
    """Write `folder`/step-N with the `state_tensors`. Raises StorageFull, after which no part of it is left."""
    from safetensors.torch import save_file

    target = step_folder(folder, progress.step)
    shutil.rmtree(target, ignore_errors=True)
    try:
        with full_storage_is_told(f"checkpoint {str(target)!r}", lambda: _goes_on(folder, identity)):
            target.mkdir(parents=True)
            save_file(dict(tensors), target / TENSORS)
            if write is not None:
                write(target)
            (target / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
            mark_complete(target, identity, [path.name for path in target.iterdir() if path.is_file()])
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    if progress.best_step is not None:
        note_best(folder, progress)


def state_tensors(model: Any, optimizer: Optimizer, wanted: bool = True) -> dict[str, Any]:
    """Trained weights and the optimiser's moments, whole. Where they are in parts, every process calls it, and those
    that do not want them get none."""
    tensors: dict[str, Any] = {}
    for name, parameter in _trainable(model).items():
        tensors[f"weight/{name}"] = whole(parameter, wanted)
        for key, value in optimizer.moments(parameter, wanted).items():
            tensors[f"optimizer/{key}/{name}"] = value
    return {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}


def note_best(folder: Path, progress: Progress) -> None:
    """Write best.json. Raises StorageFull."""
    best = {"step": progress.best_step, "metric": METRIC, "value": progress.best_value}
    with full_storage_is_told(str(folder / BEST), lambda: "every checkpoint is as it was"):
        write_atomically(folder / BEST, json.dumps(best) + "\n")


def prune_checkpoints(folder: Path, keep: int, best_step: int | None) -> None:
    """Delete all but the `keep` newest and the best one; the folder too when none is left."""
    steps = sorted(folder.glob("step-*"), reverse=True)
    best = None if best_step is None else step_folder(folder, best_step)
    for path in steps[keep:]:
        if path != best:
            shutil.rmtree(path, ignore_errors=True)
    if not keep and best is None:
        shutil.rmtree(folder, ignore_errors=True)


def forget_others(folder: Path, identity: str) -> None:
    """Delete checkpoints that another training left; their steps would stand beside those of this one."""
    for path in folder.glob("step-*"):
        if _identity(path) not in (identity, None):
            shutil.rmtree(path, ignore_errors=True)
            (folder / BEST).unlink(missing_ok=True)


def newest_complete(folder: Path, identity: str) -> Path | None:
    """The newest checkpoint of `identity` that is whole."""
    found = (path for path in sorted(folder.glob("step-*"), reverse=True) if is_complete(path, identity))
    return next(found, None)


def load_checkpoint(folder: Path, identity: str, model: Any, optimizer: Optimizer) -> Progress:
    """Restore the newest complete checkpoint of `identity`; without one nothing changes and step is 0.

    One whose best checkpoint is damaged does not count: the training could not end as it would have.
    """
    from safetensors.torch import load_file

    for candidate in sorted(folder.glob("step-*"), reverse=True):
        if not is_complete(candidate, identity):
            continue
        values = json.loads((candidate / PROGRESS).read_text(encoding="utf-8"))
        progress = Progress(**{**values, "measures": tuple(values["measures"])})
        if progress.best_step is None or is_complete(step_folder(folder, progress.best_step), identity):
            _restore(load_file(candidate / TENSORS), model, optimizer)
            return progress
    return Progress()


def load_weights(folder: Path, step: int, model: Any) -> None:
    """Give `model` the trained weights of checkpoint `step`."""
    from safetensors.torch import load_file

    _restore(load_file(step_folder(folder, step) / TENSORS), model, None)


def improves(value: float, best: float | None, least: float = 0.0) -> bool:
    """Whether `value` is below `best` by more than `least`; a value that is no number never is."""
    return math.isfinite(value) and (best is None or value < best - least)


def _goes_on(folder: Path, identity: str) -> str:
    complete = newest_complete(folder, identity)
    if complete is None:
        return "no checkpoint was complete before it"
    step = int(complete.name.removeprefix("step-"))
    return f"the checkpoint of step {step} is complete: free some space, and the same command goes on from there"


def _identity(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / MARKER).read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _trainable(model: Any) -> dict[str, Any]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _restore(tensors: dict[str, Any], model: Any, optimizer: Optimizer | None) -> None:
    import torch

    parameters = _trainable(model)
    with torch.no_grad():
        for name, parameter in parameters.items():
            put(tensors[f"weight/{name}"], parameter)
    if optimizer is None:
        return
    moments: dict[str, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, entry, name = key.split("/", 2)
            moments.setdefault(name, {})[entry] = value
    optimizer.restore((parameters[name], values) for name, values in moments.items())
