"""From what a user names, a file, a folder or a dataset on the hub, to rows."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ftagent.toolkit.data.sources import Row, Source, Tell, json_source, part_of
from ftagent.toolkit.data.splits import Split, parse_split
from ftagent.toolkit.data.tables import csv_source, parquet_source, present
from ftagent.toolkit.errors import ToolkitError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_HUB = re.compile(r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*?)(?::(?P<config>[\w.-]+))?", re.ASCII)
_SPLIT_NAMES = {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test|testing"}
_DISK = ("dataset_dict.json", "state.json")


def open_source(path: Path | str, split: str, tell: Tell) -> Source:
    """Rows of a split of a file, a folder of files, a dataset that `datasets` saved, or one on the hub.

    Raises ToolkitError where there is no such thing.
    """
    part, place = parse_split(split), Path(path)
    try:
        if place.is_dir():
            saved = any((place / name).is_file() for name in _DISK)
            source = _saved(place, part) if saved else _folder(place, part, tell)
        elif place.exists() or not (named := _HUB.fullmatch(str(path))) or place.suffix.lower() in SUFFIXES:
            source = _only_split(place, part, tell)
        else:
            source = _hub(named["name"], named["config"], part)
    except OSError as error:
        raise ToolkitError(f"{path}: cannot be read: {error.strerror}") from error
    if part.whole:
        return source
    if not part.percent and (part.start or 0) >= 0 and (part.end or 0) >= 0:
        return part_of(source, part.start, part.end)
    rows = list(source.rows)
    low, high = part.bounds(len(rows))
    return Source(source.name, iter(rows[low:high]), source.place, source.csv, source.tables)


def _only_split(path: Path, part: Split, tell: Tell) -> Source:
    if part.name not in ("train", _split_of(path.name) or path.stem, path.stem) and path.exists():
        raise ToolkitError(f"{path}: is one file, whose only split is train; there is no split {part.name!r}")
    return _file(path, tell)


def _file(path: Path, tell: Tell) -> Source:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return csv_source(path, tell)
    return parquet_source(path, tell) if suffix == ".parquet" else json_source(path, tell)


def _split_of(name: str) -> str | None:
    """The split that a file's name tells: `train`, `train-00000-of-00002`, `my_test`."""
    for split, words in _SPLIT_NAMES.items():
        if re.search(rf"(?:^|[^a-z])(?:{words})(?:[^a-z]|$)", name.lower().rpartition(".")[0]):
            return split
    return None


def _folder(folder: Path, part: Split, tell: Tell) -> Source:
    found = sorted(
        path for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
        and not any(piece.startswith((".", "_")) for piece in path.relative_to(folder).parts)
        and path.name != "dataset_infos.json"
    )  # fmt: skip
    if not found:
        raise ToolkitError(f"{folder}: has no file of {', '.join(SUFFIXES)}")
    splits: dict[str, list[Path]] = {}
    told = any(_split_of(path.name) for path in found)
    for path in found:
        # Where no name tells a split, all is for training; where some do, a file that does not is one by its own name.
        splits.setdefault(_split_of(path.name) or (path.stem if told else "train"), []).append(path)
    if part.name not in splits:
        raise ToolkitError(f"{folder}: has no split {part.name!r}; there is {', '.join(sorted(splits))}")
    chosen = splits[part.name]
    if len({path.suffix.lower() for path in chosen}) > 1:
        names = ", ".join(path.name for path in chosen[:4])
        raise ToolkitError(f"{folder}: split {part.name!r} has files of several kinds ({names}); name one file")
    sources = [_file(path, tell) for path in chosen]
    return sources[0] if len(sources) == 1 else _chain(str(folder), sources)


def _chain(name: str, sources: Sequence[Source]) -> Source:
    """One source of several. Numbers go on from file to file; places name the file and its own number."""
    starts: list[int] = []

    def rows() -> Iterator[tuple[int, Row]]:
        start = 0
        for source in sources:
            starts.append(start)
            number = start
            for own, row in source.rows:
                number = start + own
                yield number, row
            start = number

    def place(number: int) -> str:
        at = bisect_right(starts, number - 1) - 1
        return sources[at].place(number - starts[at])

    return Source(name, rows(), place, sources[0].csv, sources[0].tables)


def _saved(folder: Path, part: Split) -> Source:
    """What `save_to_disk` of datasets wrote."""
    import datasets  # type: ignore[import-untyped]

    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # a library reads files of others: whatever it says, they cannot be read
        raise ToolkitError(f"{folder}: not a dataset that can be read: {_first_line(error)}") from error
    if isinstance(found, datasets.DatasetDict):
        if part.name not in found:
            raise ToolkitError(f"{folder}: has no split {part.name!r}; there is {', '.join(map(str, found))}")
        found = found[part.name]
    elif part.name not in ("train", str(found.split)):
        raise ToolkitError(f"{folder}: has one split, {found.split or 'train'}; there is no split {part.name!r}")
    return _dataset(found, str(folder))


def _hub(name: str, config: str | None, part: Split) -> Source:
    import datasets

    try:
        found = datasets.load_dataset(name, config, split=part.name)
    except Exception as error:  # network, name, licence, format: the library's words say which
        raise ToolkitError(
            f"{name}: no file or folder of that name here, and not read from the hub: {_first_line(error)}"
        ) from error
    return _dataset(found, name)


def _dataset(found: Any, name: str) -> Source:
    def rows() -> Iterator[tuple[int, Row]]:
        number = 0
        for table in found.with_format("arrow").iter(batch_size=1000):
            for row in table.to_pylist():
                number += 1
                yield number, present(row)

    return Source(name, rows(), lambda number: f"{name}: row {number}", tables=True)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
