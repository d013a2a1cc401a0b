"""`ftagent version`."""

from __future__ import annotations

from typing import Annotated

import typer

from ftagent.cli.common import print_json


def version(json_: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Print the version."""
    import platform
    from importlib.metadata import version as installed

    found = {"ftagent": installed("ftagent"), "python": platform.python_version()}
    if json_:
        print_json(found)
    else:
        typer.echo(f"ftagent {found['ftagent']} (Python {found['python']})")
