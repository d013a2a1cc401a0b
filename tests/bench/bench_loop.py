"""What the loop itself costs: CPU and bytes per loop of a no-op scenario, and CPU to resume.

    python tests/bench/bench_loop.py [LOOPS ...]

Each count runs in three processes of its own; the lowest and the highest CPU are printed, and the lowest is what the
loop costs: whatever else the machine does only ever adds to it. CPU is user and system time, the file system's work
included; with TMPDIR=/dev/shm next to none of that is left. Nothing is deleted before the end, because ext4 is slow to
create where much was just deleted. `plain` is the floor in the same process: a bare Python loop that writes the same
number of bytes into the same number of files, synced.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNTS = (10, 100, 1000)
PROCESSES = 3
HERE = Path(__file__).parent.parent


def measure(loops: int, folder: Path) -> dict[str, float]:
    """CPU per loop in ms, bytes per loop, CPU seconds of a resume that finds everything done."""
    sys.path.insert(0, str(HERE))
    from ftagent.core.events import Limits
    from support import drive, noop

    scenario = noop(folder)
    drive(folder / "warm", scenario, limits=Limits(loop_n=2))
    run = folder / "run"
    start = time.process_time()
    drive(run, scenario, limits=Limits(loop_n=loops))
    cpu = time.process_time() - start
    # `best/`, the finish and the baseline are once per run; what grows is what counts.
    grown = [path for path in run.rglob("*") if path.is_file() and ("Loop_" in str(path) or path.suffix == ".jsonl")]
    size = sum(path.stat().st_size for path in grown)
    start = time.process_time()
    drive(run, scenario, limits=Limits(loop_n=loops))
    resume = time.process_time() - start
    return {
        "loops": loops,
        "cpu_ms": 1000 * cpu / loops,
        "bytes": size / loops,
        "resume_cpu_s": resume,
        "plain_ms": plain(folder / "plain", size, loops, len(grown)),
    }


def plain(path: Path, size: int, loops: int, files: int) -> float:
    """CPU ms per loop of writing as much, in as many files, with nothing around it."""
    chunk = b"x" * max(1, size // max(1, files))
    path.mkdir()
    start = time.process_time()
    for number in range(files):
        descriptor = os.open(path / str(number), os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, chunk)
        os.fdatasync(descriptor)
        os.close(descriptor)
    return 1000 * (time.process_time() - start) / loops


def main(counts: list[int]) -> None:
    heads = ("CPU ms/loop", "plain ms/loop", "bytes/loop", "resume CPU s")
    print(f"{'loops':>6}" + "".join(f"{head:>15}" for head in heads))
    with tempfile.TemporaryDirectory() as folder:
        for loops in counts:
            rows = [in_a_process(loops, f"{folder}/{loops}_{number}") for number in range(PROCESSES)]
            cells = [spread(rows, name, 2) for name in ("cpu_ms", "plain_ms")]
            cells += [f"{rows[0]['bytes']:.0f}", spread(rows, "resume_cpu_s", 3)]
            print(f"{loops:>6}" + "".join(f"{cell:>15}" for cell in cells))


def in_a_process(loops: int, folder: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", str(loops), folder]
    row: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return row


def spread(rows: list[dict[str, float]], name: str, digits: int) -> str:
    """The lowest and the highest."""
    values = [row[name] for row in rows]
    return f"{min(values):.{digits}f}–{max(values):.{digits}f}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(int(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main([int(arg) for arg in sys.argv[1:]] or list(COUNTS))
