"""Compare search strategies on tables of real trainings.

    python tests/bench/search/bench_search.py [--tables stsb …] [--arms ours-joint …] [--seeds 30] [--trials 100]
                                              [--modes exact noisy] [--results FILE] [--json OUT]

Replays are kept in the file of results, one JSON object a line: what is there is not replayed again. After a change of
a strategy, name another file or replay it with `--fresh ARM …`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from arms import Missing, arms  # noqa: E402
from replay import CHECKPOINTS, MODES, REACHED, SHARES, Replayed, Summary, replay, summary  # noqa: E402
from tables import SPECS, Table, load  # noqa: E402

Key = tuple[str, str, str, int]
"""Table, arm, mode, replay seed."""


class Results:
    """The append-only file of replays."""

    def __init__(self, path: Path, trials: int, fresh: list[str]) -> None:
        self._path, self._trials = path, trials
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        kept = [line for line in lines if line["arm"] not in fresh]
        if len(kept) < len(lines):
            path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._known = {
            (line["table"], line["arm"], line["mode"], line["seed"]): Replayed(**line["replayed"])
            for line in kept
            if line["trials"] == trials
        }

    def get(self, key: Key) -> Replayed | None:
        return self._known.get(key)

    def add(self, key: Key, replayed: Replayed) -> None:
        self._known[key] = replayed
        table, arm, mode, seed = key
        rounded = {name: _rounded(value) for name, value in dataclasses.asdict(replayed).items()}
        line = {"table": table, "arm": arm, "mode": mode, "seed": seed, "trials": self._trials, "replayed": rounded}
        with self._path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


def _rounded(value: Any) -> Any:
    return [round(one, 5) for one in value] if isinstance(value, list) else value


def described(table: Table) -> str:
    """One line: how large, how noisy, how hard."""
    values = table.values[..., -1]
    best, default = table.mean[table.best], table.mean[table.default]
    noise = float(values[table.best].std(ddof=1))
    good = sum(table.regret(cell) <= REACHED for cell in np.ndindex(table.mean.shape))
    return (
        f"{table.spec.name}: {table.mean.size} configurations, {values.shape[-1]} seeds; {table.spec.metric} "
        f"{default:.4f} by default, {best:.4f} at best ({table.params(table.best)}; ±{noise:.4f} between seeds); "
        f"{good} configurations reach 99 % of the gain"
    )


_HEADER = (
    f"{'arm':22} mean regret after {', '.join(map(str, CHECKPOINTS))}   trials to 90, 95, 99 % (quartiles of the last)"
    "   CPU to 99 %   stopped early"
)


def row(arm: str, found: Summary) -> str:
    regret = "  ".join(f"{found.regret[count]:5.2f}" for count in CHECKPOINTS)
    earlier = "  ".join(f"{_whole(found.earlier[share]):>4}" for share in SHARES)
    low, _, high = map(_whole, found.trials)
    return (
        f"{arm:22} {regret}   {earlier} ({low} to {high}, {found.missed} of {found.seeds} not)"
        f" {_whole(found.seconds[1]):>6} s  {found.stopped:4.0%}"
    )


def _whole(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "-"


def compare(asked: argparse.Namespace) -> list[dict[str, Any]]:
    results = Results(asked.results, asked.trials, asked.fresh)
    known = arms()
    found = []
    for name in asked.tables:
        table = load(name)
        print(described(table))
        for mode in asked.modes:
            print(f"\n{name}, {mode}\n{_HEADER}")
            for arm in asked.arms:
                try:
                    replays = []
                    for seed in range(asked.seeds):
                        key = (name, arm, mode, seed)
                        done = results.get(key)
                        if done is None:
                            done = replay(table, known[arm], mode, seed, asked.trials)
                            results.add(key, done)
                        replays.append(done)
                except Missing as why:
                    print(f"{arm:22} missing: {why}")
                    continue
                one = summary(replays)
                print(row(arm, one), flush=True)
                found.append({"table": name, "mode": mode, "arm": arm, **dataclasses.asdict(one)})
        print()
    return found


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    built = [name for name in SPECS if (Path(__file__).parent / "tables" / f"{name}.csv.gz").exists()]
    parser.add_argument("--tables", nargs="+", choices=built, default=built)
    parser.add_argument("--arms", nargs="+", choices=list(arms()), default=list(arms()))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--results", type=Path, default=Path("search-replays.jsonl"))
    parser.add_argument("--fresh", nargs="+", choices=list(arms()), default=[], help="replay these arms again")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> int:
    asked = _parsed()
    found = compare(asked)
    if asked.json:
        asked.json.write_text(json.dumps(_finite(found), indent=1) + "\n")
    return 0


def _finite(value: Any) -> Any:
    """Infinity, which JSON has not, as null."""
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
