"""`ftagent scenarios`, `ftagent benchmarks` and `ftagent models`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ftagent.cli.common import JsonOption, print_json
from ftagent.core.errors import RequestError
from ftagent.report.text import columns


def scenarios(json_: JsonOption = False) -> None:
    """List the scenarios that are installed."""
    from ftagent.cli.catalogues import scenarios as installed

    found = installed()
    if json_:
        print_json({"scenarios": [{**asdict(entry), "options": list(entry.options)} for entry in found]})
        return
    for entry in found:
        typer.echo(f"{entry.name}  ({entry.package} {entry.version}, {entry.target})")
        if entry.problem:
            typer.echo(f"  does not load: {entry.problem}")
        rows = [[f"  -o {field['name']}", str(field["default"]), field["description"]] for field in entry.options]
        for line in columns(("  OPTION", "DEFAULT", "MEANING"), rows) if rows else []:
            typer.echo(line)


def benchmarks(
    name: Annotated[
        str | None, typer.Argument(metavar="[PART]", help="Only names with this in them, with their keys.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """List the benchmarks.

    Keys follow a name: rg:chain_sum?min_terms=2&max_terms=2
    """
    from ftagent.evaluation.registry import benchmark_names, list_benchmarks

    found = [entry for entry in list_benchmarks() if name is None or name.lower() in entry.name.lower()]
    if not found:
        raise RequestError(f"no benchmark has {name!r} in its name; there are {', '.join(benchmark_names())}")
    if json_:
        print_json({"benchmarks": [asdict(entry) for entry in found]})
        return
    rows = [[e.name, _splits(e.splits), e.metric, e.licence, e.title] for e in found]
    for line in columns(("NAME", "ITEMS (VALIDATION, TEST)", "METRIC", "LICENCE", "TITLE"), rows):
        typer.echo(line)
    for entry in found if name is not None else ():
        for key, value in entry.parameters.items():
            typer.echo(f"  {entry.name}?{key}={value}")


def _splits(splits: dict[str, int]) -> str:
    return ", ".join(str(splits[name]) if name in splits else "-" for name in ("validation", "test"))


def models(json_: JsonOption = False) -> None:
    """List the base models that are known by name.

    Any hub id and any folder with safetensors can be given as well.
    """
    from ftagent_llm.models import list_models

    found = list_models()
    if json_:
        keys = ("alias", "hub", "parameters", "licence", "note")
        print_json({"models": [{key: getattr(entry, key) for key in keys} for entry in found]})
        return
    rows = [[e.alias or "-", e.hub, _count(e.parameters), e.licence, e.note] for e in found]
    for line in columns(("ALIAS", "HUB", "PARAMETERS", "LICENCE", "NOTE"), rows):
        typer.echo(line)


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"
