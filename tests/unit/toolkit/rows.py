"""Small files of conversations and questions."""

import json
import random
from pathlib import Path
from typing import Any


def conversations(path: Path, number: int = 12) -> Path:
    """Sums of two numbers of different lengths, each with its answer."""
    generator = random.Random(3)
    rows = []
    for _ in range(number):
        first, second = generator.randrange(1000), generator.randrange(10)
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": f"What is {first} + {second}?"},
                    {"role": "assistant", "content": f"{first + second}"},
                ]
            }
        )
    return write(path, rows)


def questions(path: Path, number: int = 9) -> Path:
    """Questions of different lengths with a common beginning."""
    return write(
        path,
        [
            {"id": f"q{n}", "messages": [{"role": "user", "content": "Count: " + " and ".join("abcdefghij"[:n])}]}
            for n in range(1, number + 1)
        ],
    )


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
