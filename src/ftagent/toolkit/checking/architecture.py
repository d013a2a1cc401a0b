"""Whether config.json describes a model that transformers knows and that the weights are of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftagent.toolkit.checking.findings import Finding, fault, listed, ok, one_line, warning
from ftagent.toolkit.checking.headers import FLOATS
from ftagent.toolkit.checking.weights import Weights

CONFIG = "config.json"
NEWER = "an architecture that the installed transformers has, or a newer transformers"
TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "BOOL": "bool", "C64": "complex64",
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """`model`: the architecture on torch's meta device, without weights; None where config.json gives none."""

    findings: tuple[Finding, ...]
    model: Any = None

    @property
    def name(self) -> str | None:
        return None if self.model is None else type(self.model).__name__


def check_architecture(folder: Path, weights: Weights) -> Architecture:
    """Build what config.json says, without memory for it, and compare it with the headers of the weights."""
    if not (folder / CONFIG).is_file():
        return Architecture((fault("config", f"{CONFIG} is missing", "download it"),))
    try:
        model = _build(folder)
    except Exception as error:  # noqa: BLE001  # a wrong value in config.json fails anywhere in transformers
        return Architecture((fault("config", f"{CONFIG}: {one_line(error)}", NEWER),))
    findings = [ok("config", f"{type(model).__name__} ({model.config.model_type})")]
    if getattr(model.config, "quantization_config", None) is not None:
        text = "the weights are quantised: their names and shapes were not compared"
        findings.append(warning("shapes", text, "the weights before quantisation, for training"))
    elif weights.tensors:
        findings += _compare(model, weights)
    return Architecture(tuple(findings), model)


def _build(folder: Path) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    models: Any = AutoModelForCausalLM
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        return models.from_config(config, trust_remote_code=False)


def _compare(model: Any, weights: Weights) -> list[Finding]:
    """Let transformers load tensors that have a shape and no values: it knows old names, tied and fused weights."""
    import torch

    empty = {
        name: torch.empty(tensor.shape, dtype=getattr(torch, TORCH[tensor.dtype]), device="meta")
        for name, (_, tensor) in weights.tensors.items()
        if tensor.dtype in TORCH
    }
    try:
        _, info = type(model).from_pretrained(
            None, config=model.config, state_dict=empty, device_map={"": "meta"}, output_loading_info=True,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001  # transformers names no errors of loading
        return [fault("shapes", f"transformers cannot load these tensors: {one_line(error)}", "the model's own files")]
    findings = []
    if info["missing_keys"]:
        text = f"missing: {listed(info['missing_keys'])}"
        findings.append(fault("tensors", text, f"every tensor of {type(model).__name__}; they would be random"))
    if info["unexpected_keys"]:
        text = f"not of {type(model).__name__}: {listed(info['unexpected_keys'])}"
        findings.append(warning("tensors", text, f"a {CONFIG} of the model that the tensors are of"))
    for name, there, wanted in sorted(info["mismatched_keys"])[:3]:
        text = f"{name} is {list(there)}, {CONFIG} makes it {list(wanted)}"
        findings.append(fault("shapes", text, f"{CONFIG} and weights of one model"))
    odd = [name for name, (_, tensor) in weights.tensors.items() if tensor.dtype not in FLOATS]
    if odd:
        findings.append(fault("dtype", f"{listed(odd)}: no plain floats", f"{', '.join(sorted(FLOATS))}"))
    if not findings:
        tied = f", {len(model.all_tied_weights_keys)} tied" if model.all_tied_weights_keys else ""
        findings.append(ok("tensors", f"names and shapes are those of {type(model).__name__}{tied}"))
    return findings


def embedding_rows(model: Any) -> int:
    """How many token ids the model has an embedding for."""
    return int(model.get_input_embeddings().weight.shape[0])
