"""`python -P -m ftagent.toolkit.trial_metrics collect.json`: what the trainings of a configuration measured.

One row per training goes to predictions.jsonl: the raw value of the metric, per-item outcomes and further metrics, and
what was changed for want of memory. Whether that is a score is decided elsewhere. Standard library alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ADJUSTED = "adjusted.json"
MAX_BYTES = 256 * 2**20
"""Of a metrics file."""
MAX_DETAILS = 100
_MIB = 2**20


def read_metrics(folder: Path, places: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Key → its last value, and key → the file it is from. `places` in order: the first that has a key wins."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for place in places:
        found: dict[str, Any] = {}
        for row in _rows(folder / place):
            found |= row
        for key in found.keys() - values.keys():
            values[key], sources[key] = found[key], place
    return values, sources


def _rows(path: Path) -> list[dict[str, Any]]:
    """The object of a .json, or those of the lines of a .jsonl; lines that are torn tell nothing."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return []
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    rows = []
    for part in text.split("\n") if path.suffix == ".jsonl" else [text]:
        try:
            row = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def collect(given: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of `given`: `group`, `folders`, `places`, `metric`, `outcomes`, `hidden` keys, and `output`, the
    model's folder or none."""
    rows = []
    for number, folder in enumerate(map(Path, given["folders"])):
        values, sources = read_metrics(folder, given["places"])
        metric, hidden = given["metric"], {given["metric"], given["outcomes"], *given["hidden"]}
        rest = {key: value for key, value in values.items() if key not in hidden}
        rows.append({
            "id": f"{given['group']}/run{number}",
            "present": metric in values,
            "value": values.get(metric),
            "source": sources.get(metric, ""),
            "files": [place for place in given["places"] if (folder / place).is_file()],
            "outcomes": values.get(given["outcomes"]),
            "details": _numbers(rest) | (_size(folder / given["output"]) if given["output"] else {}),
            "adjusted": next(iter(_rows(folder / ADJUSTED)), {}),
        })  # fmt: skip
    return rows


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    numbers = {
        key: float(value)
        for key, value in sorted(values.items())
        if key != "step" and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    }  # NaN and infinity are left out too
    return dict(list(numbers.items())[:MAX_DETAILS])


def _size(folder: Path) -> dict[str, float]:
    """Of what is kept as the model, in MiB."""
    if not folder.is_dir():
        return {}
    files = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    return {"size_mb": round(sum(path.lstat().st_size for path in files) / _MIB, 3)}


def main() -> int:
    """The command line."""
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    text = "".join(json.dumps(row) + "\n" for row in collect(given))
    Path("predictions.jsonl").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
