"""`ftagent scenarios`, `ftagent benchmarks` and `ftagent models`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from ftagent.cli.common import JsonOption, print_json
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
