"""`ftagent check-model MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftagent.cli import complete
from ftagent.cli.common import JsonOption, common, print_json
from ftagent.core.errors import RequestError
from ftagent.report.text import clean

if TYPE_CHECKING:
    from ftagent.toolkit.checking import Checked
    from ftagent.toolkit.checking.machine import Need


def check_model(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder, hub id or alias.", autocompletion=complete.models)
    ],
    adapter: Annotated[str | None, typer.Option(metavar="DIR", help="Whether this adapter fits, too.")] = None,
    lengths: Annotated[
        str, typer.Option(metavar="N,N", help="Tokens in a row, for the estimates of memory.")
    ] = "1024,4096",
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="Rows in a forward pass, for the same.")
    ] = 1,
    deep: Annotated[bool, typer.Option("--deep", help="Read every weight: none may be NaN or infinite.")] = False,
    json_: JsonOption = False,
) -> None:
    """Check that a model is whole and what memory it takes.

    Exit code 0: no fault; 1: faults; 2: there is nothing to look at.
    """
    from ftagent.cli.models import prepare_torch

    chosen = _lengths(lengths)
    path = _path(ctx, model)
    prepare_torch()
    from ftagent.toolkit.checking import Options, check_folder, check_pair

    options = Options(chosen, batch_size, deep)
    checked = check_folder(path, options) if adapter is None else check_pair(path, Path(adapter), options)
    if json_:
        print_json({"schema_version": 1, "model": model, **checked.document()})
    else:
        _print(checked)
    if checked.faults:
        raise typer.Exit(1)


def _path(ctx: typer.Context, name: str) -> Path:
    """A folder is looked at whatever is in it; everything else is found as other commands find it."""
    from ftagent.cli.models import resolve_model_path

    folder = Path(name).expanduser()
    return folder if name and folder.is_dir() else resolve_model_path(name, common(ctx).settings())


def _lengths(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise RequestError(f"--lengths {text!r}: write numbers of tokens, such as 1024,4096")
    return [int(word) for word in words]


def _print(checked: Checked) -> None:
    for finding in checked.findings:
        right = f"; right: {finding.right}" if finding.right else ""
        typer.echo(f"{finding.status:8} {finding.check}: {clean(f'{finding.text}{right}')}")
    trainable = f", {checked.trainable:,} trained by LoRA" if checked.trainable else ""
    typer.echo(f"{checked.weights.parameters:,} parameters ({', '.join(checked.weights.dtypes)}){trainable}")
    if checked.device is not None:
        device = checked.device
        typer.echo(f"memory in MiB for {device.dtype}, against {device.total // 2**20:,} ({device.name});")
        typer.echo("checkpointed: with gradient checkpointing")
        typer.echo(f"  {'':9} {'length':>7} {'batch':>5} {'plain':>9} {'checkpointed':>12}")
    for need in checked.needs:
        _print_need(need)
    count = len(checked.faults)
    typer.echo(f"{count or 'no'} fault{'' if count == 1 else 's'}")


def _print_need(need: Need) -> None:
    document = need.document()
    checkpointed = document["mb_with_gradient_checkpointing"]
    checkpointed = "" if checkpointed is None else f"{checkpointed:,}"
    state = "fits" if need.fits else f"does not fit: {need.advice}"
    typer.echo(f"  {need.method:9} {need.length:7} {need.batch:5} {document['mb']:9,} {checkpointed:>12}  {state}")
