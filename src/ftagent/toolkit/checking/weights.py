"""Whether the weights of a folder are whole: index against shards, headers, sizes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ftagent.toolkit.checking.findings import Finding, fault, listed, ok, one_line, warning
from ftagent.toolkit.checking.headers import DamagedHeader, Tensor, read_header, unique_keys

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
NOT_WEIGHTS = {"training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"}
DOWNLOAD_AGAIN = "download the file again"


@dataclass(frozen=True)
class Weights:
    """What was found, and each tensor with the file that holds it. `files` are those that loading would read."""

    findings: tuple[Finding, ...]
    tensors: dict[str, tuple[Path, Tensor]]
    files: tuple[Path, ...]

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for _, tensor in self.tensors.values())

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(tensor.size for _, tensor in self.tensors.values())

    @property
    def dtypes(self) -> tuple[str, ...]:
        """As safetensors names them, the one with the most bytes first."""
        sizes: dict[str, int] = {}
        for _, tensor in self.tensors.values():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size
        return tuple(sorted(sizes, key=lambda name: -sizes[name]))


def check_weights(folder: Path) -> Weights:
    """Look at every safetensors file of `folder`; only headers are read."""
    pickles = _pickles(folder)
    if (folder / SINGLE).is_file():
        found = _read([folder / SINGLE], {}, list(pickles))
        if (folder / INDEX).is_file():
            text = f"{SINGLE} and {INDEX} are both there; the single file is loaded"
            found = _with(found, warning("index", text, "keep one of them"))
        return found
    if (folder / INDEX).is_file():
        return _sharded(folder, pickles)
    stray = sorted(path.name for path in folder.glob("*.safetensors"))
    if stray:
        text = f"neither {SINGLE} nor {INDEX}, but {listed(stray)}"
        return Weights((fault("files", text, f"download {INDEX} or give the file its name"),), {}, ())
    if pickles:
        return Weights(tuple(pickles), {}, ())
    return Weights((fault("files", "there are no weights", f"{SINGLE}, or {INDEX} with its shards"),), {}, ())


def read_single(path: Path) -> Weights:
    """The same for one file that has no index."""
    if not path.is_file():
        return Weights((fault("files", f"{path.name} is missing", "download or save it again"),), {}, ())
    return _read([path], {}, [])


def _with(weights: Weights, finding: Finding) -> Weights:
    return Weights((*weights.findings, finding), weights.tensors, weights.files)


def _pickles(folder: Path) -> tuple[Finding, ...]:
    found = {path.name for pattern in PICKLES for path in folder.glob(pattern)} - NOT_WEIGHTS
    if not found:
        return ()
    if any(folder.glob("*.safetensors")):
        return (warning("files", f"{listed(found)}: pickles, never loaded", "delete them"),)
    way_out = (
        "ask the publisher for safetensors, or convert on a machine that may run the publisher's code: "
        "https://huggingface.co/docs/safetensors/convert-weights"
    )
    return (fault("files", f"{listed(found)}: pickles can run code and are not loaded", way_out),)


def _sharded(folder: Path, pickles: tuple[Finding, ...]) -> Weights:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
        places = index["weight_map"]
        if not places or not all(isinstance(place, str) for place in places.values()):
            raise ValueError("weight_map does not name a file for each tensor")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Weights((fault("index", f"{INDEX}: {one_line(error)}", DOWNLOAD_AGAIN),), {}, ())
    names = sorted(set(places.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        return Weights((fault("index", f"{INDEX} names {listed(outside)}", "names of files in this folder"),), {}, ())
    findings = list(pickles)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        findings.append(fault("files", f"{listed(missing)}: missing", "download the missing shards"))
    unnamed = {path.name for path in folder.glob("*.safetensors")} - set(names)
    if unnamed:
        findings.append(warning("files", f"{listed(unnamed)}: not in {INDEX}, never loaded", "delete them"))
    found = _read([folder / name for name in names if name not in missing], places, findings)
    total = (index.get("metadata") or {}).get("total_size")
    if isinstance(total, int) and not missing and total != found.size:
        text = f"{INDEX} says {total} bytes in total, the shards have {found.size}"
        return _with(found, warning("sizes", text, "an index that was saved with its shards"))
    return found


def _read(files: list[Path], places: dict[str, str], findings: list[Finding]) -> Weights:
    """`places`: the shard of each tensor as an index names it; empty for a single file."""
    tensors: dict[str, tuple[Path, Tensor]] = {}
    headers: dict[str, dict[str, Tensor]] = {}
    for path in files:
        try:
            header = read_header(path)
        except (DamagedHeader, OSError) as error:
            findings.append(fault("headers", f"{path.name}: {one_line(error)}", DOWNLOAD_AGAIN))
            continue
        headers[path.name] = header
        twice = [name for name in header if name in tensors]
        if twice:
            first = tensors[twice[0]][0].name
            findings.append(fault("index", f"{listed(twice)}: in {first} and in {path.name}", "each tensor once"))
        tensors |= {name: (path, tensor) for name, tensor in header.items() if name not in tensors}
    absent = [name for name, place in places.items() if place in headers and name not in headers[place]]
    if absent:
        findings.append(fault("index", f"{listed(absent)}: not in the shard that {INDEX} names", DOWNLOAD_AGAIN))
    if places and (unnamed := [name for name in tensors if name not in places]):
        findings.append(fault("index", f"{listed(unnamed)}: in a shard, but not in {INDEX}", "an index of all tensors"))
    if not any(finding.status == "fault" for finding in findings):
        size = sum(path.stat().st_size for path in files) / 2**20
        where = f"{len(files)} file{'s' if len(files) > 1 else ''}, {size:.1f} MiB"
        findings.append(ok("files", f"{len(tensors)} tensors in {where}, as the headers say"))
    return Weights(tuple(findings), tensors, tuple(files))
