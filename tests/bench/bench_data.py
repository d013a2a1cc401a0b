"""Reading training data against `json.loads` alone, on the same files in the same run, interleaved.

    python tests/bench/bench_data.py [--rows 100000] [--rounds 5]

The floor reads the file line by line and keeps what `json.loads` gives. CPU seconds of the process, the least of the
rounds: whatever else a machine does only adds.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORMATS = ("messages", "conversations", "sharegpt", "alpaca", "prompt_completion")


def rows(count: int) -> list[dict[str, Any]]:
    """Conversations of one to four exchanges, about 600 bytes each."""
    words = ["the", "model", "learns", "from", "what", "it", "is", "shown", "longer", "texts", "take", "more", "time"]
    pick = random.Random(7)

    def text(least: int, most: int) -> str:
        return " ".join(pick.choices(words, k=pick.randint(least, most)))

    return [
        {
            "messages": [
                {"role": role, "content": text(5, least)}
                for _ in range(pick.choice((1, 1, 1, 2, 4)))
                for role, least in (("user", 30), ("assistant", 90))
            ]
        }
        for _ in range(count)
    ]


def plain(path: Path) -> int:
    with path.open(encoding="utf-8") as stream:
        return len([json.loads(line) for line in stream])


def cpu(work: Callable[[], Any]) -> float:
    gc.collect()
    began = time.process_time()
    kept = work()
    spent = time.process_time() - began
    del kept
    return spent


def measured(path: Path, rounds: int) -> tuple[float, float]:
    from ftagent.toolkit.data import read_conversations

    pairs = [(cpu(lambda: plain(path)), cpu(lambda: read_conversations(path))) for _ in range(rounds)]
    return min(floor for floor, _ in pairs), min(ours for _, ours in pairs)


def main(count: int, rounds: int) -> None:
    from ftagent.toolkit.data.formats import FORMATS as KNOWN
    from ftagent.toolkit.data.formats import parse, unparse

    items = [parse(KNOWN["messages"], row, line) for line, row in enumerate(rows(count), start=1)]
    print(f"{'format':18} {'MB':>6} {'json.loads':>11} {'ours':>7} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for name in FORMATS:
            path = Path(folder) / f"{name}.jsonl"
            fit = items if name != "prompt_completion" else [item for item in items if KNOWN[name].is_text(item)]
            with path.open("w", encoding="utf-8") as stream:
                stream.writelines(
                    json.dumps(unparse(KNOWN[name], item, name == "prompt_completion")) + "\n" for item in fit
                )
            floor, ours = measured(path, rounds)
            size = path.stat().st_size / 1e6
            print(f"{name:18} {size:6.1f} {floor:9.3f} s {ours:5.3f} s {ours / floor:6.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    main(asked.rows, asked.rounds)
