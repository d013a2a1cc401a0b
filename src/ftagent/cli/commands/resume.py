"""`ftagent resume RUN`."""

from __future__ import annotations

from typing import Annotated

import typer

from ftagent.cli.commands.run import BudgetUsd, Controls, Interactive, LoopN, StepN, Timeout
from ftagent.cli.common import JsonOption, LogDirOption, RunArgument, common, open_run
from ftagent.cli.parsing import parse_limits, parse_place
from ftagent.core.errors import RequestError


def resume(
    ctx: typer.Context,
    run: RunArgument,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="LOOP[:STEP]", help="Go back to here first; later loops no longer count."),
    ] = None,
    fork: Annotated[bool, typer.Option("--fork", help="Into a new run folder; this one stays as it is.")] = False,
    loop_n: LoopN = None,
    step_n: StepN = None,
    timeout: Timeout = None,
    budget_usd: BudgetUsd = None,
    interactive: Interactive = None,
    controls: Controls = False,
    log_dir: LogDirOption = None,
    json_: JsonOption = False,
) -> int:
    """Go on with a run, or go back in it and go on from there.

    Higher limits extend a finished run. Limits that are not given stay as they are.
    """
    from ftagent import app
    from ftagent.cli.watching import watch

    place = parse_place(from_) if from_ is not None else None
    limits = parse_limits(loop_n, step_n, timeout, budget_usd)
    folder = open_run(ctx, run, log_dir)
    if place is not None:
        loops = len(folder.state().experiments)
        if place.loop >= loops:
            raise RequestError(f"--from {from_}: {folder.name} has loops 0 to {loops - 1}" if loops else
                               f"--from {from_}: {folder.name} has no loop yet")  # fmt: skip
    settings = common(ctx).settings()
    return watch(
        common(ctx),
        settings,
        json_,
        lambda observer, gate: app.resume(
            folder.path,
            settings,
            observer,
            place=place,
            fork=fork,
            limits=limits,
            gate=gate,
            interactive=interactive,
            with_controls=controls,
        ),
    )
