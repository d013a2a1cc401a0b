"""`ftagent config show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftagent.cli.common import JsonOption, common, print_json
from ftagent.report.text import clean, columns, shorten

if TYPE_CHECKING:
    from ftagent.settings import Settings


def show(
    ctx: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Also say where each value came from.")] = False,
    json_: JsonOption = False,
) -> None:
    """Show each setting in effect and where it came from.

    Secrets are only said to be set. What a command line gives wins over all of these.
    """
    settings = common(ctx).settings()
    if json_:
        print_json(_document(settings))
        return
    rows = [[v.variable.name, _cell(v.shown), v.origin, v.variable.part] for v in settings.values]
    if origin:
        lines = columns(("SETTING", "VALUE", "ORIGIN", "PART"), rows)
    else:
        lines = columns(("SETTING", "VALUE"), [row[:2] for row in rows])
    for line in lines:
        typer.echo(line)
    for note in settings.notes:
        typer.echo(f"warning: {note}", err=True)


def _cell(value: Any) -> str:
    import json

    if value is None or value == []:
        return "-"
    return shorten(value if isinstance(value, str) else clean(json.dumps(value)), 60)


def _document(settings: Settings) -> dict[str, Any]:
    return {
        "env_file": str(settings.env_file) if settings.env_file else None,
        "settings": [
            {
                "name": value.variable.name,
                "value": value.shown,
                "origin": value.origin,
                "part": value.variable.part,
                "description": value.variable.description,
            }
            for value in settings.values
        ],
        "credentials": sorted(settings.credentials),
        "warnings": list(settings.notes),
    }
