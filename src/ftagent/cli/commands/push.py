"""`ftagent push FOLDER REPO`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftagent.cli.common import YesOption, common, confirm
from ftagent.core.errors import RequestError
from ftagent.report.text import clean

if TYPE_CHECKING:
    from ftagent.toolkit.pushing import Upload


def push(
    ctx: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A model or an adapter.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME, or NAME of your own.")],
    private: Annotated[bool, typer.Option("--private", help="Create the repository for you alone.")] = False,
    revision: Annotated[str, typer.Option(metavar="BRANCH", help="Commit there; created where it is new (main).")] = "",
    message: Annotated[str, typer.Option(metavar="TEXT", help="Of the commit.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be uploaded, and stop.")] = False,
    yes: YesOption = False,
) -> None:
    """Upload a model or an adapter to the hub.

    Weights, configs, tokenizer, card and licence go, in one commit; checkpoints, logs and states stay. HF_TOKEN and
    HF_ENDPOINT say as whom and where to.
    """
    from ftagent.cli.models import prepare_torch
    from ftagent.contexts import hub_access

    access = hub_access(common(ctx).settings())
    if access.offline:
        raise RequestError("HF_HUB_OFFLINE is set: nothing can be uploaded")
    prepare_torch()
    from ftagent.toolkit.pushing import Hub, plan_upload, upload

    hub = Hub(access.token, access.endpoint)
    planned = plan_upload(Path(folder), repo, hub, private, revision)
    _show(planned, hub.address)
    if dry_run:
        return
    what = "Update" if planned.exists else "Create"
    if not confirm(f"{what} {planned.repo} at {hub.address}?", yes):
        raise typer.Abort
    typer.echo(f"uploaded: {upload(planned, hub, message)}")


def _show(planned: Upload, address: str) -> None:
    kind = "private" if planned.private else "public"
    state = "is there" if planned.exists else "is new"
    typer.echo(f"{address}/{planned.repo} ({kind}, {state}), branch {planned.revision}")
    typer.echo(f"{len(planned.files)} files, {planned.size / 2**20:.1f} MiB: {', '.join(planned.files)}")
    if planned.left:
        typer.echo(f"stays here: {', '.join(planned.left)}")
    if planned.deleted:
        typer.echo(f"deleted there, because it would be loaded too: {', '.join(planned.deleted)}")
    for line in planned.warnings:
        typer.echo(f"warning: {clean(line)}", err=True)
