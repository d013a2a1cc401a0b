"""Whether an adapter is whole, and whether it fits a base model."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftagent.toolkit.checking.findings import Finding, fault, listed, ok, one_line, warning
from ftagent.toolkit.checking.hashes import check_hashes
from ftagent.toolkit.checking.weights import Weights, read_single
from ftagent.toolkit.models import ADAPTER_CONFIG, ADAPTER_WEIGHTS

PREFIX = "base_model.model."
PARTS = re.compile(r"\.(lora_A|lora_B|lora_magnitude_vector|lora_embedding_A|lora_embedding_B)(\.weight)?$")
OTHER_BASE = "the base model that the adapter was trained on"


@dataclass(frozen=True)
class Adapter:
    """What was found. `settings`: adapter_config.json; empty where it does not read."""

    findings: tuple[Finding, ...]
    settings: dict[str, Any]
    weights: Weights


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def check_adapter(folder: Path) -> Adapter:
    """An adapter by itself: whole safetensors, settings that read, rank that the tensors have."""
    empty = Weights((), {}, ())
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickle = " (adapter_model.bin is a pickle, never loaded)" if (folder / "adapter_model.bin").exists() else ""
        right = f"{ADAPTER_WEIGHTS}: save it with safe_serialization=True where the adapter was made"
        return Adapter((fault("adapter files", f"{ADAPTER_WEIGHTS} is missing{pickle}", right),), {}, empty)
    weights = read_single(folder / ADAPTER_WEIGHTS)
    findings = [_named(finding) for finding in (*weights.findings, *check_hashes(folder))]
    try:
        settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        rank, kind = settings["r"], settings["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        findings.append(fault("adapter config", f"{ADAPTER_CONFIG}: {one_line(error)}", "train again"))
        return Adapter(tuple(findings), {}, weights)
    if kind != "LORA":
        findings.append(fault("adapter config", f"peft_type is {kind}", "LORA"))
    elif not settings.get("rank_pattern"):
        findings.append(_check_rank(weights, rank))
    return Adapter(tuple(findings), settings, weights)


def _named(finding: Finding) -> Finding:
    return Finding(f"adapter {finding.check}", finding.status, finding.text, finding.right)


def _check_rank(weights: Weights, rank: int) -> Finding:
    wrong = [
        name for name, (_, tensor) in weights.tensors.items()
        if (part := PARTS.search(name)) and "magnitude" not in part[1] and len(tensor.shape) == 2
        and tensor.shape[0 if part[1].endswith("A") else 1] != rank
    ]  # fmt: skip
    if wrong:
        return fault(
            "adapter rank", f"{ADAPTER_CONFIG} says {rank}; not so {listed(wrong)}", "config and weights of one"
        )
    return ok("adapter rank", f"{rank}")


def check_fit(adapter: Adapter, base: Path, model: Any) -> list[Finding]:
    """Whether each tensor of `adapter` has its place in `model`, the architecture of `base` on the meta device."""
    modules = dict(model.named_modules())
    absent, wrong = [], []
    for name, (_, tensor) in adapter.weights.tensors.items():
        # PEFT wraps an embedding that it adapts and saves it whole.
        inner = name.removeprefix(PREFIX).replace(".base_layer.", ".")
        part = PARTS.search(inner)
        target = modules.get(inner[: part.start()] if part else inner.removesuffix(".weight").removesuffix(".bias"))
        if target is None or getattr(target, "weight", None) is None:
            absent.append(inner)
        elif not _fits(part[1] if part else "", inner, tensor.shape, target):
            wrong.append(f"{inner} {list(tensor.shape)} on {list(target.weight.shape)}")
    findings = []
    if absent:
        text = f"{type(model).__name__} has no place for {listed(absent)}"
        findings.append(fault("adapter modules", text, OTHER_BASE))
    if wrong:
        findings.append(fault("adapter shapes", listed(wrong), OTHER_BASE))
    if not adapter.weights.tensors:
        findings.append(fault("adapter modules", "there is no tensor", "an adapter that was trained"))
    if not findings:
        count = len(adapter.weights.tensors)
        findings.append(ok("adapter fit", f"{count} tensors fit {type(model).__name__}"))
    return [*findings, *_check_name(adapter, base)]


def _fits(part: str, name: str, shape: tuple[int, ...], target: Any) -> bool:
    weight = tuple(target.weight.shape)
    if part in ("lora_A", "lora_B") and len(shape) == 2 and len(weight) == 2:
        return bool(shape[1] == weight[1] if part == "lora_A" else shape[0] == weight[0])
    if part == "lora_magnitude_vector":
        return shape == weight[:1]
    if part.startswith("lora_embedding") and len(shape) == 2:
        return bool(shape[1] == weight[0] if part.endswith("A") else shape[0] == weight[1])
    if not part:
        kept = getattr(target, name.rsplit(".", 1)[-1], None)
        return kept is not None and tuple(kept.shape) == shape
    return False


def _check_name(adapter: Adapter, base: Path) -> list[Finding]:
    named = str(adapter.settings.get("base_model_name_or_path") or "")
    if not named or _same_model(named, base):
        return []
    text = f"was trained on {named}, the base is {base}"
    return [warning("adapter base", text, "the same base model, if it only moved or has another name")]


def _same_model(named: str, base: Path) -> bool:
    """By folder, by the end of the path, or by the name that the hub's cache gives its folders."""
    if Path(named).exists() and Path(named).resolve() == base.resolve():
        return True
    cached = "models--" + named.replace("/", "--")
    return cached in base.resolve().parts or named.rstrip("/").rsplit("/", 1)[-1].lower() == base.resolve().name.lower()
