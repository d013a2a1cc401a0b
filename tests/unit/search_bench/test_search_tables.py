"""The committed tables are complete, hold their default, and leave something to win."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import building
import numpy as np
import pytest
import tables

BUILT = sorted(path.name.removesuffix(".csv.gz") for path in tables.FOLDER.glob("*.csv.gz"))
SMALL = tables.spec(
    "small", "score", "maximize",
    [tables.number("learning_rate", 1e-3, [1e-4, 1e-3, 1e-2], log=True), tables.choice("loss", "a", ["a", "b"])],
)  # fmt: skip


def rows() -> list[dict[str, str]]:
    """Learning rate 1e-2 and loss b are best; the worst is not finite."""
    found = []
    for cell in SMALL.cells():
        for seed in SMALL.seeds:
            value = math.log10(cell["learning_rate"]) + (0.5 if cell["loss"] == "b" else 0.0) + 0.01 * seed
            value = math.nan if cell == {"learning_rate": 1e-4, "loss": "b"} and seed == 1 else value
            measured = building.Measured(
                cell, [value - 5 / k for k in range(1, 6)], [0.1 * k for k in range(1, 6)], 0.01
            )
            found.append(building.row_of(measured, seed))
    return found


@pytest.mark.parametrize("name", BUILT)
def test_committed_table_is_a_complete_grid_of_its_specification(name: str) -> None:
    table = tables.load(name)
    assert table.values.shape[-1] == tables.POINTS
    assert table.values.shape[-2] >= 2
    assert math.prod(table.mean.shape) >= 50
    assert table.params(table.default) == table.spec.default
    assert all(set(axis) <= set(table.spec.grid[p.name]) for p, axis in zip(table.space, table.grid, strict=True))
    assert table.best != table.default
    assert table.regret(table.default) == 1.0
    assert table.regret(table.best) == 0.0
    assert np.isfinite(table.seconds).all()
    assert (np.diff(table.seconds, axis=-1) >= 0).all()
    assert (tables.FOLDER / f"{name}.csv.gz").stat().st_size < 500_000


def test_there_are_tables() -> None:
    assert "lightgbm" in BUILT


def test_rows_come_back_from_a_file(tmp_path: Path) -> None:
    path = tables.save(SMALL, reversed(rows()), tmp_path)
    first = path.read_bytes()
    assert tables.save(SMALL, rows(), tmp_path).read_bytes() == first
    table = tables.from_rows(SMALL, tables.read("small", tmp_path))
    assert table.params(table.best) == {"learning_rate": 1e-2, "loss": "b"}
    assert table.mean[table.default] == pytest.approx(-3 + 0.01 - 1)
    assert math.isnan(table.mean[table.snap({"learning_rate": 1e-4, "loss": "b"})])
    assert table.regret(table.snap({"learning_rate": 1e-4, "loss": "b"})) == math.inf


@pytest.mark.parametrize(
    ("rate", "cell"), [(1e-4, 0), (3e-4, 0), (3.3e-4, 1), (3e-3, 1), (3.3e-3, 2), (9.0, 2)], ids=str
)
def test_snaps_to_the_nearest_by_logarithm(rate: float, cell: int) -> None:
    assert tables.from_rows(SMALL, rows()).snap({"learning_rate": rate, "loss": "b"}) == (cell, 1)


def test_tables_with_holes_are_refused() -> None:
    with pytest.raises(ValueError, match="1 cells are missing, 0 are there twice"):
        tables.from_rows(SMALL, rows()[1:])
    with pytest.raises(ValueError, match="0 cells are missing, 1 are there twice"):
        tables.from_rows(SMALL, [*rows(), rows()[0]])
    with pytest.raises(ValueError, match="the default of learning_rate is no grid value"):
        tables.from_rows(SMALL, [row for row in rows() if row["learning_rate"] != "0.001"])


def test_build_resumes_after_a_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "ROWS", tmp_path)
    monkeypatch.setattr(building, "read", lambda name: tables.read(name, tmp_path))
    monkeypatch.setattr(building, "save", lambda what, rows: tables.save(what, rows, tmp_path))
    measured: list[tuple[Any, int]] = []

    def measure(params: Any, seed: int) -> list[building.Measured]:
        measured.append((params, seed))
        return [building.Measured(params, [0.5] * 5, [1.0] * 5, 0.1)]

    building.build(SMALL, measure)
    complete = (tmp_path / "small.csv").read_text()
    assert len(measured) == len(SMALL.cells()) * len(SMALL.seeds)
    (tmp_path / "small.csv.gz").unlink()
    (tmp_path / "small.csv").write_text(complete[:-7])
    measured.clear()
    building.build(SMALL, measure)
    assert len(measured) == 1
    assert (tmp_path / "small.csv").read_text() == complete
    (tmp_path / "small.csv").unlink()
    building.build(SMALL, measure)
    assert len(measured) == 1, "the table alone is enough"
