"""Small files of conversations and questions."""

import json
import random
from pathlib import Path
from typing import Any

from ftagent.toolkit.data import Preference, Problem


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


def preferences(number: int = 6) -> list[Preference]:
    """Right and wrong sums, replies of different lengths; the second has a turn before and a system message."""
    generator = random.Random(4)
    found = []
    for line in range(1, number + 1):
        first, second = generator.randrange(100), generator.randrange(10)
        prompt = [{"role": "user", "content": f"What is {first} + {second}?"}]
        if line == 2:
            turn = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
            prompt = [{"role": "system", "content": "Be short."}, *turn, *prompt]
        right = {"role": "assistant", "content": f"It is {first + second}."}
        wrong = {"role": "assistant", "content": f"I think that this may be {first + second + line}, or not."}
        found.append(Preference(tuple(prompt), (right,), (wrong,), line))
    return found


def problems(number: int = 6) -> list[Problem]:
    """Sums of two digits."""
    generator = random.Random(6)
    found = []
    for line in range(1, number + 1):
        first, second = generator.randrange(10), generator.randrange(10)
        prompt = ({"role": "user", "content": f"{first} + {second} ="},)
        found.append(Problem(prompt, str(first + second), line))
    return found
