"""Benchmarks by name."""

from pathlib import Path

import pytest

from ftagent.core.context import HubAccess
from ftagent.core.errors import RequestError
from ftagent.evaluation.registry import benchmark_names, list_benchmarks, resolve_benchmark


@pytest.mark.parametrize(
    ("name", "words"),
    [("gsm", "did you mean 'gsm8k'"), ("chain_sun", "did you mean 'rg:chain_sum'"), ("", "no benchmark given"),
     ("zzz", "valid: gsm8k, and rg:TASK")],
)  # fmt: skip
def test_an_unknown_name_lists_valid_ones(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        resolve_benchmark(name, HubAccess(), tmp_path)


def test_the_catalogue_holds_every_task() -> None:
    entries = {entry.name: entry for entry in list_benchmarks()}
    assert len(entries) > 100
    assert entries["rg:chain_sum"].parameters["max_terms"] == "6"
    assert entries["gsm8k"].licence == "MIT"
    assert benchmark_names() == ["gsm8k", "rg:"]


def test_spelling_of_a_name_does_not_matter(tmp_path: Path) -> None:
    one = resolve_benchmark("rg:gcd?max_value=50&min_value=2", HubAccess(), tmp_path)
    two = resolve_benchmark("rg:gcd?min_value=2&max_value=50", HubAccess(), tmp_path)
    assert one.name == two.name
    assert one.items("test", 20) == two.items("test", 20)
