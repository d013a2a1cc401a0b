"""Every check of a folder, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftagent.toolkit.checking.adapter import Adapter, check_adapter, check_fit, is_adapter
from ftagent.toolkit.checking.architecture import Architecture, check_architecture, embedding_rows
from ftagent.toolkit.checking.findings import Finding, fault, faults, ok, one_line, warning
from ftagent.toolkit.checking.hashes import check_hashes
from ftagent.toolkit.checking.machine import Device, Need, find_device, needs
from ftagent.toolkit.checking.weights import Weights, check_weights
from ftagent.toolkit.errors import ToolkitError

DEFAULT_LENGTHS = (1024, 4096)


@dataclass(frozen=True)
class Options:
    """`lengths` and `batch`: of which memory is estimated. `deep` reads every weight."""

    lengths: Sequence[int] = DEFAULT_LENGTHS
    batch: int = 1
    deep: bool = False
    memory: bool = True


@dataclass(frozen=True)
class Checked:
    """What was found in `path`. `model` is the architecture on the meta device, None where there is none."""

    path: Path
    kind: str
    findings: tuple[Finding, ...]
    weights: Weights
    model: Any = None
    adapter: Path | None = None
    trainable: int = 0
    device: Device | None = None
    needs: tuple[Need, ...] = field(default=())

    @property
    def faults(self) -> list[Finding]:
        return faults(self.findings)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        device = self.device
        return {
            "path": str(self.path),
            "kind": self.kind,
            "adapter": None if self.adapter is None else str(self.adapter),
            "architecture": None if self.model is None else type(self.model).__name__,
            "parameters": self.weights.parameters,
            "trainable_by_lora": self.trainable,
            "dtypes": list(self.weights.dtypes),
            "faults": len(self.faults),
            "findings": [finding.document() for finding in self.findings],
            "device": device and {"kind": device.kind, "name": device.name, "mb": device.total // 2**20},
            "memory": [need.document() for need in self.needs],
        }


def check_folder(folder: Path, options: Options | None = None) -> Checked:
    """A model, or an adapter by itself. Raises ToolkitError where there is nothing to look at."""
    chosen = options or Options()
    _require_folder(folder)
    _quiet()
    if is_adapter(folder):
        adapter = check_adapter(folder)
        named = adapter.settings.get("base_model_name_or_path") or "its base"
        text = "not compared with a base model"
        fit = warning("adapter fit", text, f"ftagent check-model BASE --adapter {folder} (trained on {named})")
        values = _values(adapter.weights) if chosen.deep else []
        return Checked(folder, "adapter", (*adapter.findings, *values, fit), adapter.weights)
    weights = check_weights(folder)
    architecture = check_architecture(folder, weights)
    findings = [*weights.findings, *check_hashes(folder), *architecture.findings]
    findings += _words(folder, architecture)
    findings += _values(weights) if chosen.deep else []
    checked = Checked(folder, "model", tuple(findings), weights, architecture.model)
    return _with_uses(checked, chosen)


def check_pair(base: Path, folder: Path, options: Options | None = None) -> Checked:
    """A model and whether the adapter of `folder` fits it. Raises ToolkitError where there is nothing to look at."""
    _require_folder(folder)
    checked = check_folder(base, options)
    if checked.kind != "model":
        raise ToolkitError(f"{base}: is an adapter itself; give the base model first, then --adapter")
    adapter = check_adapter(folder)
    found = [*checked.findings, *adapter.findings]
    found += _values(adapter.weights) if options is not None and options.deep else []
    found += _fit(adapter, folder, checked)
    return Checked(
        base, "model", tuple(found), checked.weights, checked.model, folder, checked.trainable, checked.device,
        checked.needs,
    )  # fmt: skip


def _fit(adapter: Adapter, folder: Path, checked: Checked) -> list[Finding]:
    if checked.model is None:
        return [fault("adapter fit", "the base model's architecture is not known", "a base model without faults")]
    from ftagent.toolkit.checking.vocabulary import check_adapter_vocabulary

    found = check_fit(adapter, checked.path, checked.model)
    return [*found, *check_adapter_vocabulary(folder, checked.model)]


def _require_folder(folder: Path) -> None:
    try:
        if any(folder.iterdir()):
            return
    except OSError as error:
        raise ToolkitError(f"{folder}: cannot be looked at: {error.strerror}; give a folder that exists") from error
    raise ToolkitError(f"{folder}: the folder is empty; give the folder of a model")


def _quiet() -> None:
    from transformers.utils import logging

    quiet: Any = logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()


def _words(folder: Path, architecture: Architecture) -> list[Finding]:
    from ftagent.toolkit.checking.vocabulary import check_generation, check_tokenizer

    found, _ = check_tokenizer(folder, architecture.model)
    rows = None if architecture.model is None else embedding_rows(architecture.model)
    return [*found, *check_generation(folder, rows)]


def _values(weights: Weights) -> list[Finding]:
    from ftagent.toolkit.checking.deep import check_values

    return check_values(weights) if weights.files else []


def _with_uses(checked: Checked, options: Options) -> Checked:
    """Add what the model can be used for: our fast paths, its longest text, memory."""
    if checked.model is None:
        return checked
    from ftagent.toolkit.checking.memory import shape_of
    from ftagent.toolkit.models import can_pack

    findings = list(checked.findings)
    longest = max(options.lengths)
    limit = getattr(checked.model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and longest > limit:
        findings.append(warning("length", f"{longest} tokens are more than the {limit} it was made for", f"{limit}"))
    if can_pack(checked.model, longest):
        findings.append(ok("toolkit", f"rows of {longest} tokens can share a sequence (packing)"))
    else:
        text = f"rows of {longest} tokens cannot share a sequence: training is slower"
        findings.append(warning("toolkit", text, "full attention, or a window that is longer than a row"))
    try:
        shape = shape_of(checked.model)
    except (ToolkitError, AttributeError) as error:
        findings.append(warning("toolkit", one_line(error), "an architecture of transformer layers, for adapters"))
        return Checked(checked.path, "model", tuple(findings), checked.weights, checked.model)
    rank = default_rank()
    device = find_device() if options.memory else None
    estimates = tuple(needs(shape, options.lengths, options.batch, device, rank)) if device else ()
    return Checked(
        checked.path, "model", tuple(findings), checked.weights, checked.model, None,
        shape.adapter_parameters(rank), device, estimates,
    )  # fmt: skip


def default_rank() -> int:
    """Of LoRA, where train.yaml does not say."""
    from ftagent.toolkit.presets import default_values

    return int(default_values()["rank"])
