"""From a benchmark's name to the benchmark."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from ftagent.core.context import HubAccess
from ftagent.core.errors import RequestError
from ftagent.evaluation.benchmark import Benchmark
from ftagent.toolkit.verifiers.tasks import PREFIX, describe_task, task_names


@dataclass(frozen=True)
class BenchmarkEntry:
    """A line of `ftagent benchmarks`. `splits` says how many items each has before `--limit`."""

    name: str
    title: str
    metric: str
    splits: dict[str, int]
    source: str
    licence: str
    parameters: dict[str, str]
    """Keys that may follow the name (`?key=value&…`) with their defaults."""


CATALOGUE = (
    BenchmarkEntry(
        "gsm8k",
        "Grade-school mathematics word problems",
        "accuracy",
        {"train": 6960, "validation": 500, "test": 1319},
        "hub openai/gsm8k (main)",
        "MIT",
        {},
    ),
)


def resolve_benchmark(name: str, hub: HubAccess, cache: Path) -> Benchmark:
    """`gsm8k` or `rg:NAME?key=value&…`. `cache` (FT_FILE_PATH) keeps downloads. Raises RequestError."""
    if name.startswith(PREFIX):
        from ftagent.evaluation.procedural import ProceduralBenchmark

        return ProceduralBenchmark(name)
    if name.lower() == "gsm8k":
        from ftagent.evaluation.gsm8k import Gsm8k

        return Gsm8k(hub, cache)
    raise RequestError(_unknown(name))


def list_benchmarks(tasks: bool = True) -> list[BenchmarkEntry]:
    """The catalogue; with `tasks` (imports reasoning-gym) every procedural task with its keys and
    defaults."""
    entries = list(CATALOGUE)
    if tasks:
        entries += [_procedural(task) for task in task_names()]
    return entries


def benchmark_names() -> list[str]:
    """Names without importing anything heavy; `rg:` stands for all procedural tasks."""
    return [*(entry.name for entry in CATALOGUE), PREFIX]


def _procedural(task: str) -> BenchmarkEntry:
    from ftagent.evaluation.procedural import SIZES

    return BenchmarkEntry(
        PREFIX + task,
        f"reasoning-gym: {task.replace('_', ' ')}",
        "accuracy",
        {str(split): size for split, size in SIZES.items()},
        "reasoning-gym",
        "Apache-2.0",
        {key: str(value) for key, value in describe_task(task).items()},
    )


def _unknown(name: str) -> str:
    valid = [entry.name for entry in CATALOGUE]
    shown = f"valid: {', '.join(valid)}, and {PREFIX}TASK?key=value&… for every task of reasoning-gym"
    if not name:
        return f"no benchmark given (--benchmark); {shown}; `ftagent benchmarks` lists all"
    near = difflib.get_close_matches(name, valid, n=1)
    if not near:
        near = [PREFIX + task for task in difflib.get_close_matches(name, task_names(), n=1)]
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown benchmark {name!r}; {hint}{shown}; `ftagent benchmarks` lists all"
