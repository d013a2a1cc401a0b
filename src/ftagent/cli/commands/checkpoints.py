"""`ftagent checkpoints DIR`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftagent.cli.common import JsonOption, print_json
from ftagent.report.text import clean, columns, number, size

if TYPE_CHECKING:
    from ftagent.toolkit.checkpoints import Checkpoint, Listing


def checkpoints(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A training's save_model_path, a run or an adapter.")],
    json_: JsonOption = False,
) -> None:
    """List what a training or a run saved, and whether it is whole.

    Every file is compared with the hash that was written when it was complete.
    """
    from ftagent.toolkit.checkpoints import list_checkpoints

    listing = list_checkpoints(Path(folder).expanduser())
    if json_:
        print_json(_document(listing))
        return
    if listing.base:
        typer.echo(f"base model {clean(listing.base)}")
    if not listing.checkpoints:
        typer.echo(f"nothing saved in {listing.folder} yet")
        return
    for line in table(listing):
        typer.echo(line)
    for item in listing.checkpoints:
        if item.state in ("incomplete", "damaged"):
            typer.echo(f"{item.name} is not used: {clean(item.problem)}")


def table(listing: Listing) -> list[str]:
    """A line for each checkpoint, under a header."""
    header = ("NAME", "STEP", "LOSS", "VALIDATION", "STATE", "SIZE", "WRITTEN", "")
    return columns(header, [_row(item) for item in listing.checkpoints])


def _row(item: Checkpoint) -> list[str]:
    metric, value = item.validation or ("", 0.0)
    shown = metric.removeprefix("validation_")
    return [
        f"step-{item.step}" if item.name.startswith("step-") and item.step is not None else clean(item.name),
        "-" if item.step is None else str(item.step),
        "-" if item.loss is None else number(item.loss),
        f"{clean(shown)} {number(value)}" if metric else "-",
        f"{item.state}, no weights" if item.holds == "state" else item.state,
        size(item.bytes),
        time.strftime("%m-%d %H:%M", time.localtime(item.written_at)),
        ", ".join(word for word, holds in (("newest", item.newest), ("best", item.best)) if holds),
    ]


def _document(listing: Listing) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "folder": str(listing.folder),
        "kind": listing.kind,
        "base_model": listing.base or None,
        "checkpoints": [_item(item) for item in listing.checkpoints],
    }


def _item(item: Checkpoint) -> dict[str, Any]:
    metric, value = item.validation or (None, None)
    return {
        "name": item.name,
        "path": str(item.path),
        "holds": item.holds,
        "state": item.state,
        "problem": item.problem or None,
        "step": item.step,
        "loss": item.loss,
        "metric": metric,
        "value": value,
        "bytes": item.bytes,
        "written_at": item.written_at,
        "newest": item.newest,
        "best": item.best,
    }
