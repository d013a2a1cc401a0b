"""Completions for the shell. They must be quick and silent: what cannot be read completes to nothing."""

from __future__ import annotations

from ftagent.cli.catalogues import benchmark_names, model_names, scenario_names


def scenarios(incomplete: str) -> list[str]:
    """Scenario names."""
    return [name for name in scenario_names() if name.startswith(incomplete)]


def benchmarks(incomplete: str) -> list[str]:
    """Benchmark names."""
    return [name for name in benchmark_names() if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Names of base models."""
    return [name for name in model_names() if name.startswith(incomplete)]
