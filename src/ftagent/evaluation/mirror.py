"""Rows of public datasets: from the hub through `datasets`, or from a local mirror of it.

A mirror is a folder with `mirror.json`: for each hub id its config, its format (`jsonl` or `csv`) and the
files of each split; `score_scale` divides the field `score` where the hub has it from 0 to 1. Both ways end in the
same list of plain dictionaries.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftagent.core.context import HubAccess
from ftagent.core.errors import RequestError

Row = dict[str, Any]


def load_rows(hub_id: str, config: str, split: str, hub: HubAccess, cache: Path) -> list[Row]:
    """All rows of one split. `cache` is where a hub download is kept. Raises RequestError, one line, when
    there is no such dataset, config, split or access."""
    if hub.mirror is not None:
        return list(_mirror_rows(hub.mirror, hub_id, config, split))
    return _hub_rows(hub_id, config, split, hub, cache)


def mirrored(hub: HubAccess) -> tuple[str, ...]:
    """Hub ids that the mirror holds; empty without a mirror."""
    return tuple(sorted(_index(hub.mirror))) if hub.mirror is not None else ()


def _index(mirror: Path) -> dict[str, Any]:
    path = mirror / "mirror.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["schema_version"] != 1:
            raise RequestError(f"{path}: schema_version is {index['schema_version']}, this ftagent reads 1")
        datasets: dict[str, Any] = index["datasets"]
    except OSError as error:
        raise RequestError(f"FTAGENT_DATA_MIRROR: {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{path}: is not a mirror index ({type(error).__name__}: {error})") from error
    return datasets


def _mirror_rows(mirror: Path, hub_id: str, config: str, split: str) -> Iterator[Row]:
    datasets = _index(mirror)
    if hub_id not in datasets:
        raise RequestError(f"{mirror}: has no dataset {hub_id}; it has: {', '.join(sorted(datasets))}")
    entry = datasets[hub_id]
    if entry["config"] != config:
        raise RequestError(f"{mirror}: {hub_id} has config {entry['config']}, not {config}")
    if split not in entry["splits"]:
        raise RequestError(f"{mirror}: {hub_id} has no split {split}; it has: {', '.join(entry['splits'])}")
    readers = {"jsonl": _jsonl_rows, "csv": _csv_rows}
    if entry["format"] not in readers:
        raise RequestError(f"{mirror}: {hub_id} has format {entry['format']}; known: {', '.join(readers)}")
    for name in entry["splits"][split]:
        for row in readers[entry["format"]](mirror / name, entry):
            yield _scaled(row, entry["score_scale"], mirror / name) if "score_scale" in entry else row


def _scaled(row: Row, scale: float, path: Path) -> Row:
    try:
        return {**row, "score": float(row["score"]) / scale}
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{path}: a row has no number as score: {row.get('score')!r}") from error


def _jsonl_rows(path: Path, entry: dict[str, Any]) -> Iterator[Row]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RequestError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise RequestError(f"{path}:{number}: not a JSON object")
        yield row


def _csv_rows(path: Path, entry: dict[str, Any]) -> Iterator[Row]:
    lines = csv.reader(io.StringIO(_text(path)))
    columns = next(lines) if entry.get("header", True) else entry["columns"]
    for number, values in enumerate(lines, 1):
        if len(values) != len(columns):
            raise RequestError(f"{path}:{number}: {len(values)} columns, expected {len(columns)}")
        yield dict(zip(columns, values, strict=True))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read: {error}") from error


def _hub_rows(hub_id: str, config: str, split: str, hub: HubAccess, cache: Path) -> list[Row]:
    import datasets  # type: ignore[import-untyped]

    download = datasets.DownloadConfig(token=hub.token or None, local_files_only=hub.offline)
    if hub.endpoint:
        download.storage_options = {"hf": {"endpoint": hub.endpoint, "token": hub.token or None}}
    try:
        table = datasets.load_dataset(
            hub_id,
            None if config == "default" else config,
            split=split,
            cache_dir=str((hub.home or cache) / "datasets"),
            download_config=download,
            token=hub.token or None,
        )
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise RequestError(
            f"dataset {hub_id} ({config}, {split}) cannot be loaded from the hub: {first}; "
            "check the network and HF_TOKEN, or point FTAGENT_DATA_MIRROR at a local mirror"
        ) from error
    return [dict(row) for row in table]
