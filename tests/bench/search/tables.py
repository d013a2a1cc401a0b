"""Tables of real results: for each cell of a grid and each seed, the metric at five points of a training, and its cost.

A table is `tables/NAME.csv.gz`: one row for a cell and a seed, with the parameters, `seed`, the metric after each fifth
of the training (`value_1` … `value_5`; empty where it was not finite), the CPU-seconds of training until there
(`seconds_1` … `seconds_5`) and the CPU-seconds of one evaluation. What the parameters are stands here; the grid is what
the rows hold.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ftagent.core.types import Direction, Parameter

FOLDER = Path(__file__).parent / "tables"
POINTS = 5
VALUES = [f"value_{point}" for point in range(1, POINTS + 1)]
SECONDS = [f"seconds_{point}" for point in range(1, POINTS + 1)]

Axis = tuple[Parameter, tuple[Any, ...]]
Array = npt.NDArray[np.float64]
Cell = tuple[int, ...]
"""Index of the grid value of each parameter."""


@dataclass(frozen=True)
class Spec:
    """What a table is about: `grid` lists for each parameter the values that are built."""

    name: str
    metric: str
    direction: Direction
    space: tuple[Parameter, ...]
    grid: Mapping[str, tuple[Any, ...]]
    last: tuple[str, ...] = ()
    """Their values are built one after the other, the default first, so that a smaller grid is complete early."""
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def columns(self) -> list[str]:
        return [*(p.name for p in self.space), "seed", *VALUES, *SECONDS, "evaluation"]

    @property
    def default(self) -> dict[str, Any]:
        return {parameter.name: parameter.default for parameter in self.space}

    def cells(self) -> list[dict[str, Any]]:
        """All cells, in the order in which they are built."""
        names = [p.name for p in self.space]
        every = [
            dict(zip(names, cell, strict=True)) for cell in itertools.product(*(self.grid[name] for name in names))
        ]

        def rank(cell: Mapping[str, Any], name: str) -> int:
            return 0 if cell[name] == self.default[name] else self.grid[name].index(cell[name]) + 1

        return sorted(every, key=lambda cell: [rank(cell, name) for name in self.last])


def number(name: str, default: float, values: Sequence[float], log: bool = False) -> Axis:
    kind = "int" if all(isinstance(value, int) for value in values) else "float"
    return Parameter(name, kind, default, min(values), max(values), log), tuple(values)


def choice(name: str, default: Any, values: Sequence[Any]) -> Axis:
    return Parameter(name, "choice", default, choices=tuple(values)), tuple(values)


def spec(name: str, metric: str, direction: Direction, axes: Sequence[Axis], **further: Any) -> Spec:
    return Spec(name, metric, direction, tuple(p for p, _ in axes), {p.name: values for p, values in axes}, **further)


LIGHTGBM = spec(
    "lightgbm", "log_loss", "minimize",
    [
        number("learning_rate", 0.1, [0.0125, 0.025, 0.05, 0.1, 0.2, 0.4], log=True),
        number("rounds", 100, [25, 50, 100, 200], log=True),
        number("num_leaves", 31, [4, 8, 16, 31, 62], log=True),
        number("min_data_in_leaf", 20, [5, 10, 20, 40], log=True),
        number("feature_fraction", 1.0, [0.25, 0.5, 1.0], log=True),
    ],
)  # fmt: skip
STSB = spec(
    "stsb", "spearman", "maximize",
    [
        number("learning_rate", 2e-5, [6e-6, 2e-5, 6e-5, 2e-4, 6e-4, 2e-3, 6e-3], log=True),
        number("epochs", 1, [1, 2, 4], log=True),
        number("batch_size", 16, [8, 16, 32, 64], log=True),
        number("warmup_ratio", 0.1, [0.0, 0.1, 0.3]),
        choice("loss", "cosine", ["cosine", "cosent"]),
    ],
    last=("warmup_ratio", "batch_size"),
)  # fmt: skip
LORA = spec(
    "lora", "log_likelihood", "maximize",
    [
        number("learning_rate", 2e-4, [6e-5, 2e-4, 6e-4, 2e-3, 6e-3, 2e-2, 6e-2], log=True),
        number("rank", 8, [2, 8, 32], log=True),
        number("batch_size", 8, [4, 8, 16], log=True),
    ],
    seeds=(0, 1),
)  # fmt: skip
SPECS: dict[str, Spec] = {one.name: one for one in (STSB, LIGHTGBM, LORA)}


@dataclass(frozen=True)
class Table:
    """A complete grid. `values` and `seconds` have the shape of the grid, then seeds, then points; NaN is a failure."""

    spec: Spec
    grid: tuple[tuple[Any, ...], ...]
    values: Array
    seconds: Array
    evaluation: Array
    """CPU-seconds of one evaluation, by cell and seed."""

    @property
    def space(self) -> tuple[Parameter, ...]:
        return self.spec.space

    @property
    def direction(self) -> Direction:
        return self.spec.direction

    @property
    def mean(self) -> Array:
        """The last value, averaged over seeds, by cell; NaN where one seed failed."""
        averaged: Array = self.values[..., -1].mean(axis=-1)
        return averaged

    def snap(self, params: Mapping[str, Any]) -> Cell:
        """The nearest cell: by logarithm where the parameter says so, by equality for a choice."""
        return tuple(
            values.index(params[p.name]) if p.kind == "choice" else _nearest(values, float(params[p.name]), p.log)
            for p, values in zip(self.space, self.grid, strict=True)
        )

    def params(self, cell: Cell) -> dict[str, Any]:
        return {p.name: values[index] for p, values, index in zip(self.space, self.grid, cell, strict=True)}

    @property
    def default(self) -> Cell:
        return self.snap(self.spec.default)

    @property
    def best(self) -> Cell:
        """Of the values averaged over seeds."""
        flat = np.nanargmax(self.mean) if self.direction == "maximize" else np.nanargmin(self.mean)
        return tuple(int(index) for index in np.unravel_index(flat, self.mean.shape))

    def regret(self, cell: Cell) -> float:
        """How far `cell` is from the best, in shares of what the best gains on the default; infinite for a failure."""
        best, default = self.mean[self.best], self.mean[self.default]
        share = float((best - self.mean[cell]) / (best - default))
        return share if math.isfinite(share) else math.inf


def _nearest(values: Sequence[float], value: float, log: bool) -> int:
    scale = math.log if log else float
    return min(range(len(values)), key=lambda index: abs(scale(values[index]) - scale(value)))


def read(name: str, folder: Path = FOLDER) -> list[dict[str, str]]:
    """The rows of a committed table; none where there is no table yet."""
    path = folder / f"{name}.csv.gz"
    return list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode()))) if path.exists() else []


def load(name: str, folder: Path = FOLDER) -> Table:
    """A committed table. Raises ValueError where a cell is missing, is there twice, or the default is none."""
    return from_rows(SPECS[name], read(name, folder))


def from_rows(what: Spec, rows: Iterable[Mapping[str, str]]) -> Table:
    read = [(tuple(_typed(p, row[p.name]) for p in what.space), int(row["seed"]), row) for row in rows]
    grid = tuple(_axis(p, {values[index] for values, _, _ in read}) for index, p in enumerate(what.space))
    seeds = sorted({seed for _, seed, _ in read})
    shape = (*(len(values) for values in grid), len(seeds))
    values = np.full((*shape, POINTS), np.nan)
    seconds, evaluation, seen = np.full((*shape, POINTS), np.nan), np.full(shape, np.nan), np.zeros(shape, int)
    for cell, seed, row in read:
        place = (*(axis.index(value) for axis, value in zip(grid, cell, strict=True)), seeds.index(seed))
        values[place] = [float(row[column] or "nan") for column in VALUES]
        seconds[place] = [float(row[column]) for column in SECONDS]
        evaluation[place] = float(row["evaluation"])
        seen[place] += 1
    if (seen != 1).any():
        raise ValueError(f"{what.name}: {(seen == 0).sum()} cells are missing, {(seen > 1).sum()} are there twice")
    for parameter, axis in zip(what.space, grid, strict=True):
        if parameter.default not in axis:
            raise ValueError(f"{what.name}: the default of {parameter.name} is no grid value")
    return Table(what, grid, values, seconds, evaluation)


def _typed(parameter: Parameter, text: str) -> Any:
    if parameter.kind == "choice":
        return next(value for value in parameter.choices if str(value) == text)
    return int(text) if parameter.kind == "int" else float(text)


def _axis(parameter: Parameter, values: set[Any]) -> tuple[Any, ...]:
    return tuple(v for v in parameter.choices if v in values) if parameter.kind == "choice" else tuple(sorted(values))


def save(what: Spec, rows: Iterable[Mapping[str, str]], folder: Path = FOLDER) -> Path:
    """Write sorted rows; the same rows give the same bytes."""
    rows = sorted(rows, key=lambda row: [*(_typed(p, row[p.name]) for p in what.space), int(row["seed"])])
    text = io.StringIO()
    writer = csv.DictWriter(text, what.columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = folder / f"{what.name}.csv.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    return path
