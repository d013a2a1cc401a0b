"""Building a table, cell by cell: what is in the append-only file of rows, or in the table, is not measured again."""

from __future__ import annotations

import csv
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tables import FOLDER, SECONDS, VALUES, Spec, read, save

ROWS = FOLDER / "rows"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Measured:
    """One training: the metric at its five points, the CPU-seconds until each, and those of one evaluation."""

    params: Mapping[str, Any]
    values: Sequence[float]
    seconds: Sequence[float]
    evaluation: float


Measure = Callable[[Mapping[str, Any], int], Iterable[Measured]]
"""Parameters and seed → that cell, and whatever other cells of the same seed came with it."""


def one_thread() -> None:
    """Start this script again with one thread a process, so that CPU-seconds of cells compare."""
    if any(os.environ.get(name) != "1" for name in _THREADS):
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        os.execv(sys.executable, [sys.executable, *sys.argv])


def build(what: Spec, measure: Measure) -> None:
    """Measure what neither the file of rows nor the table has; then write the table."""
    path = ROWS / f"{what.name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = _read(what, path)
    done = {_key(what, row) for row in rows}
    rows += [row for row in read(what.name) if _key(what, row) not in done]
    done = {_key(what, row) for row in rows}
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, what.columns, lineterminator="\n")
        for params in what.cells():
            for seed in what.seeds:
                if _key(what, {**params, "seed": seed}) in done:
                    continue
                for measured in measure(params, seed):
                    row = row_of(measured, seed)
                    if _key(what, row) not in done:
                        done.add(_key(what, row))
                        rows.append(row)
                        writer.writerow(row)
                stream.flush()
    print(f"{what.name}: {len(rows)} rows, {cost(rows) / 60:.1f} CPU-minutes → {save(what, rows)}")


def cost(rows: Iterable[Mapping[str, str]]) -> float:
    """CPU-seconds of training and of evaluating each cell five times, as if none shared a training."""
    return sum(float(row[SECONDS[-1]]) + len(SECONDS) * float(row["evaluation"]) for row in rows)


def _read(what: Spec, path: Path) -> list[dict[str, str]]:
    """Complete rows only; a line that a kill cut short is taken away, so that the next one starts afresh."""
    if not path.exists():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    path.write_text("".join(whole), encoding="utf-8")
    return list(csv.DictReader(whole, what.columns))


def _key(what: Spec, row: Mapping[str, Any]) -> tuple[str, ...]:
    return (*(str(row[p.name]) for p in what.space), str(row["seed"]))


def row_of(measured: Measured, seed: int) -> dict[str, str]:
    row = {name: str(value) for name, value in measured.params.items()} | {"seed": str(seed)}
    row |= {name: f"{v:.5f}" if math.isfinite(v) else "" for name, v in zip(VALUES, measured.values, strict=True)}
    row |= {name: f"{value:.3f}" for name, value in zip(SECONDS, measured.seconds, strict=True)}
    return row | {"evaluation": f"{measured.evaluation:.4f}"}
