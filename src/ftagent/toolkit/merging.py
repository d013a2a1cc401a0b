"""An adapter added to the weights of its base model, with the proof that nothing else changed."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from ftagent.toolkit.checking import check_pair
from ftagent.toolkit.checking.check import Options
from ftagent.toolkit.checking.vocabulary import TOKENIZERS, load_tokenizer
from ftagent.toolkit.command import Emit
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.files import fingerprint, mark_complete, sha256
from ftagent.toolkit.folders import CHECKPOINTS
from ftagent.toolkit.model_card import merged_card
from ftagent.toolkit.proof import TOLERANCES, Logits, Proof, compare, logits_of, logits_with_adapter, probe_ids

RECORD = "merge.json"
CARD = "README.md"
UNFINISHED = ".merging-"
"""In the names of folders that are deleted when they are left over: no folder of a user has it by chance."""


class UnequalMerge(ToolkitError):
    """The merged model does not say what the adapter says; nothing was kept of it."""


@dataclass(frozen=True)
class Merged:
    """Where the model is, its dtype, and the proof that went into its card."""

    path: Path
    dtype: str
    proof: Proof


def merge(base: Path, adapter: Path, out: Path, dtype: str, emit: Emit) -> Merged:
    """Write `base` with `adapter` merged to `out`, which appears whole or not at all.

    `dtype`: float32, bfloat16, float16, or auto, the one that most of the base's weights have. The merged model is
    loaded back and has to give the adapter's logits on the probes. Raises UnequalMerge when it does not, ToolkitError
    for what cannot be merged: a mismatch, an `out` that is not empty, a full disk.
    """
    with warnings.catch_warnings():
        # They are about the insides of libraries, and that tied weights need care: the proof sees to that.
        warnings.filterwarnings("ignore", module=r"(transformers|peft)\.")
        return _merge(base, adapter, out, dtype, emit)


def _merge(base: Path, adapter: Path, out: Path, dtype: str, emit: Emit) -> Merged:
    kept = _prepare(out)
    emit({"event": "checking", "base": str(base), "adapter": str(adapter)})
    chosen = _check(base, adapter, dtype)
    tokenizer = load_tokenizer(_words(base, adapter))
    probes = probe_ids(tokenizer)
    emit({"event": "asking", "probes": len(probes), "tokens": sum(len(ids) for ids in probes)})
    expected, plain = logits_with_adapter(base, adapter, probes)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{kept.name}{UNFINISHED}", dir=kept.parent))
    except OSError as error:
        raise ToolkitError(f"{out}: cannot be written: {error.strerror}") from error
    try:
        emit({"event": "merging", "dtype": chosen})
        _write(base, adapter, folder, chosen, tokenizer)
        proof = _prove(folder, expected, plain, probes, chosen)
        emit({"event": "proved", **proof.document()})
        _describe(base, adapter, folder, proof)
        folder.chmod(0o755)
        folder.replace(kept)
    except OSError as error:
        raise ToolkitError(f"{out}: cannot be written: {error.strerror or error}; nothing was kept") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    emit({"event": "merged", "output": str(out)})
    return Merged(out, chosen, proof)


def _words(base: Path, adapter: Path) -> Path:
    """Whose tokenizer the merged model gets: that of the training, which may have brought a chat template."""
    place = adapter.absolute()
    places = [place, place.parent.parent] if place.parent.name == CHECKPOINTS else [place]
    return next((place for place in places if any(any(place.glob(name)) for name in TOKENIZERS)), base)


def _prepare(out: Path) -> Path:
    """Where the result goes, absolute; its parent exists."""
    target = out.expanduser().absolute()
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ToolkitError(f"{out}: is there and no folder; name a folder that is empty or not there yet")
    if target.is_dir() and any(target.iterdir()):
        raise ToolkitError(f"{out}: the folder is not empty; name one that is empty or not there yet")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolkitError(f"{out}: cannot be written: {error.strerror}") from error
    for leftover in target.parent.glob(f"{escape(f'.{target.name}{UNFINISHED}')}*"):
        # Of a merge that was killed.
        if re.fullmatch(rf"\.{re.escape(target.name + UNFINISHED)}\w{{8}}", leftover.name):
            shutil.rmtree(leftover, ignore_errors=True)
    return target


def _check(base: Path, adapter: Path, dtype: str) -> str:
    """The dtype to save in. Raises ToolkitError with the first fault of base or adapter, or of both together."""
    checked = check_pair(base, adapter, Options(memory=False))
    if checked.faults:
        first = checked.faults[0]
        raise ToolkitError(f"{adapter} cannot be merged into {base}: {first.check}: {first.text}; right: {first.right}")
    if dtype != "auto":
        if dtype not in TOLERANCES:
            raise ToolkitError(f"dtype {dtype!r}: choose auto, {', '.join(TOLERANCES)}")
        return dtype
    names = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
    return names.get(checked.weights.dtypes[0], "float32")


def _write(base: Path, adapter: Path, folder: Path, dtype: str, tokenizer: Any) -> None:
    """Merge in float32, round once, save."""
    import torch
    from safetensors import SafetensorError

    from ftagent.toolkit.models import load_model, merge_adapter

    model, _ = load_model(str(base), "float32", "cpu")
    model = merge_adapter(model, adapter)
    try:
        model.to(getattr(torch, dtype)).save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    for path in folder.glob("*.safetensors"):
        # safetensors writes for its owner alone.
        path.chmod(0o644)


def _prove(folder: Path, expected: Logits, plain: Logits, probes: list[list[int]], dtype: str) -> Proof:
    """Load what was written, as anybody would, and compare."""
    from ftagent.toolkit.models import load_model

    # Weights are as saved; computing in float32 leaves their own rounding as the only difference.
    model, _ = load_model(str(folder), "float32", "cpu")
    proof = compare(expected, logits_of(model, probes), plain, dtype)
    if proof.problem:
        raise UnequalMerge(f"the merged model is not what the adapter is: {proof.problem}; nothing was kept")
    return proof


def _describe(base: Path, adapter: Path, folder: Path, proof: Proof) -> None:
    """merge.json, the card, and the marker that vouches for every file."""
    from ftagent.toolkit.mapping import mapping_of
    from ftagent.toolkit.models import ADAPTER_CONFIG, ADAPTER_WEIGHTS

    mapping = mapping_of(adapter.absolute())
    sources = {
        "base": {path.name: sha256(path) for path in sorted(base.glob("*.safetensors"))},
        "adapter": {name: sha256(adapter / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)},
    }
    record = {
        "schema_version": 1,
        "base": str(base),
        "adapter": str(adapter),
        "dtype": proof.dtype,
        "sources": sources,
        "proof": proof.document(),
        # As the adapter's train.yaml has them: the merged model wants the same prompts.
        "map_function": mapping.function,
        "thinking": mapping.thinking,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / CARD).write_text(merged_card(base, adapter, sources, proof), encoding="utf-8")
    names = [path.name for path in folder.iterdir() if path.is_file()]
    mark_complete(folder, fingerprint({"sources": sources, "dtype": proof.dtype}), names)
