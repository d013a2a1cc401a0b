"""`ftagent prune RUN`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import typer

from ftagent.cli.common import LogDirOption, RunArgument, YesOption, confirm, open_run
from ftagent.core.errors import FtagentError
from ftagent.core.outputs import drop_dangling
from ftagent.report.text import size


def prune(ctx: typer.Context, run: RunArgument, yes: YesOption = False, log_dir: LogDirOption = None) -> None:
    """Delete the workspaces of a run; its record stays."""
    folder = open_run(ctx, run, log_dir)
    if not folder.workspaces.is_dir() or folder.workspaces.is_symlink():
        typer.echo(f"{folder.path}: no workspaces to delete")
        return
    # The lock both refuses a running run and keeps one from starting meanwhile.
    with folder.lock():
        state = folder.state()
        roots = [folder.workspaces, *sorted(folder.controls.glob("*/workspaces"))]
        amount = size(sum(_bytes(root) for root in roots))
        warning = "" if state.status else " It is not finished: resuming will train its open loop again."
        if not confirm(f"Delete {folder.workspaces} ({amount})?{warning}", yes):
            raise typer.Abort()
        try:
            for root in roots:
                shutil.rmtree(root)
            drop_dangling(folder.path)
        except OSError as error:
            raise FtagentError(f"{error.filename}: cannot be deleted ({error.strerror})") from error
    typer.echo(f"deleted {folder.workspaces}: {amount} freed")


def _bytes(root: Path) -> int:
    """Bytes of the files below `root`; links are counted as links."""
    total = 0
    for parent, _, names in os.walk(root):
        for name in names:
            total += os.lstat(Path(parent) / name).st_size
    return total
