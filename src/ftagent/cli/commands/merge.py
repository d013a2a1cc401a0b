"""`ftagent merge BASE ADAPTER OUT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ftagent.cli import complete
from ftagent.cli.common import JsonOption, common, print_json
from ftagent.core.errors import FtagentError


def merge(
    ctx: typer.Context,
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="Folder, hub id or alias.", autocompletion=complete.models)
    ],
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="Folder of the adapter.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder for the model; empty, or not there yet.")],
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Of the merged weights; auto: as the base's."),
    ] = "auto",
    json_: JsonOption = False,
) -> None:
    """Add an adapter to the weights of its base model.

    The result is kept only if it gives the adapter's logits; its card shows how near.
    """
    from ftagent.cli.models import prepare_torch, resolve_model_path

    path = resolve_model_path(base, common(ctx).settings())
    prepare_torch()
    from ftagent.toolkit import merging

    try:
        done = merging.merge(
            path, Path(adapter), Path(out), dtype, _tell if sys.stderr.isatty() and not json_ else _silent
        )
    except merging.UnequalMerge as error:
        raise FtagentError(str(error)) from error
    if json_:
        document = {"base": str(path), "adapter": adapter, "output": out, "dtype": done.dtype}
        print_json({"schema_version": 1, **document, "proof": done.proof.document()})
        return
    proof = done.proof
    typer.echo(
        f"{out}: {done.dtype}; logits differ by {proof.max_difference:.3g} at most, KL {proof.kl:.3g}, "
        f"{proof.agreement:.1%} of {proof.tokens} top tokens agree"
    )
    if proof.note:
        typer.echo(f"note: {proof.note}", err=True)


def _silent(record: dict[str, Any]) -> None: ...


def _tell(record: dict[str, Any]) -> None:
    texts = {
        "checking": "checking that the adapter fits",
        "asking": "asking the base model with the adapter",
        "merging": "merging and loading back",
    }
    if text := texts.get(str(record["event"])):
        typer.echo(text, err=True)
