"""`ftagent stop RUN`."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import Annotated

import typer

from ftagent.cli.common import LogDirOption, RunArgument, open_run
from ftagent.cli.progress import resume_command
from ftagent.core.errors import FtagentError, RequestError

_POLL_SECONDS = 0.1


def stop(
    ctx: typer.Context,
    run: RunArgument,
    now: Annotated[bool, typer.Option("--now", help="Do not let the step finish.")] = False,
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait.")] = 600.0,
    log_dir: LogDirOption = None,
) -> None:
    """Stop a running run cleanly.

    As Ctrl-C does in its own shell: the step is finished or rolled back, and the run can be resumed.
    """
    folder = open_run(ctx, run, log_dir)
    holder = folder.holder()
    if holder is None:
        raise RequestError(f"{folder.path}: is not running")
    if holder.host != socket.gethostname():
        raise RequestError(f"{folder.path}: held by {holder}; stop it on that host")
    if holder.pid <= 0:
        raise RequestError(f"{folder.path}: held by a process that did not write its number")
    try:
        for _ in range(2 if now else 1):
            os.kill(holder.pid, signal.SIGINT)
            # Two signals at once may be delivered as one.
            time.sleep(_POLL_SECONDS)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise RequestError(f"{folder.path}: held by {holder}, which is not yours to stop") from error
    deadline = time.monotonic() + wait
    while folder.holder() is not None:
        if time.monotonic() > deadline:
            raise FtagentError(f"{folder.path}: {holder} was told to stop and has not stopped after {wait:g} s")
        time.sleep(_POLL_SECONDS)
    typer.echo(f"stopped {folder.path}")
    typer.echo(resume_command(folder.path))
