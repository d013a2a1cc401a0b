"""What a loop costs, and that it costs the same at loop 10 and at loop 200.

Counted in calls and bytes, which no busy machine changes; `tests/bench/bench_loop.py` measures the time.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ftagent.core.events import Limits
from support import drive, noop

MOST_CALLS = 1700
"""Per loop; it was 1580 with Python 3.11 when this was set."""


def calls(work: object) -> int:
    """Python and C function calls made by `work`."""
    count = 0

    def profiler(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profiler)
    try:
        work()  # type: ignore[operator]
    finally:
        sys.setprofile(None)
    return count


def recorded(run: Path) -> int:
    files = [path for path in run.rglob("*") if path.is_file() and ("Loop_" in str(path) or path.suffix == ".jsonl")]
    return sum(path.stat().st_size for path in files)


def test_calls_per_loop_are_few_and_do_not_grow(tmp_path: Path) -> None:
    scenario, run = noop(tmp_path), tmp_path / "run"
    drive(run, scenario, limits=Limits(loop_n=5))
    counted = {}
    for loops, step in ((15, 10), (190, 175)):
        made = calls(lambda loops=loops: drive(run, scenario, limits=Limits(loop_n=loops)))
        counted[loops] = made / step
    assert counted[190] < 1.15 * counted[15]
    assert counted[190] < MOST_CALLS


def test_bytes_per_loop_are_constant_and_few(tmp_path: Path) -> None:
    scenario, run = noop(tmp_path), tmp_path / "run"
    sizes = {}
    for loops in (20, 60, 100):
        drive(run, scenario, limits=Limits(loop_n=loops))
        sizes[loops] = recorded(run)
    early, late = (sizes[60] - sizes[20]) / 40, (sizes[100] - sizes[60]) / 40
    assert late < 1.05 * early
    assert late < 8 * 1024
