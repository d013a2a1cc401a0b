"""`ftagent replay RUN`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftagent.cli import log
from ftagent.cli.common import JsonOption, LogDirOption, RunArgument, common, open_run, print_json
from ftagent.cli.progress import choose
from ftagent.cli.redacted import Redacted, redaction
from ftagent.cli.watching import prepare_libraries
from ftagent.report.text import clock, plural

if TYPE_CHECKING:
    from ftagent.replay import Replayed

EQUAL, DIFFERENT = 0, 1


def replay(
    ctx: typer.Context,
    run: RunArgument,
    execute: Annotated[
        bool, typer.Option("--execute", help="Execute the commands too; else they end as they were recorded.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the replayed run in this new folder.")] = None,
    log_dir: LogDirOption = None,
    json_: JsonOption = False,
) -> int:
    """Run a recorded run again and tell the first difference.

    Its models say again what they said: no key and no network are needed. Prompts are made anew and compared with
    those that were sent; predictions are scored anew. Exit code 0: all is equal; 1: something differs.
    """
    from ftagent import replay as replaying
    from ftagent.cli.progress.plain import PlainLines

    folder = open_run(ctx, run, log_dir)
    settings = common(ctx).settings()
    # With --json the one document is all that is on stdout.
    progress = PlainLines(sys.stderr, sys.stderr, 0.0) if json_ else choose(False, settings.loop.log_typing_delay)
    redact = redaction(settings)
    end_log = log.configure(settings.loop.log_format_console, progress.log, common(ctx).debug, redact)
    prepare_libraries(settings)
    progress.open()
    try:
        result = replaying.replay(folder.path, settings, Redacted(progress, redact), execute=execute, out=out)
    finally:
        progress.close()
        end_log()
    if json_:
        print_json(_document(result))
    else:
        for line in _lines(result):
            typer.echo(line)
    return EQUAL if result.difference is None else DIFFERENT


def _document(result: Replayed) -> dict[str, Any]:
    difference = result.difference
    return {
        "schema_version": 1,
        "run": str(result.run),
        "executed": result.executed,
        "loops": result.loops,
        "calls": result.calls,
        "seconds": result.seconds,
        "equal": difference is None,
        "difference": None
        if difference is None
        else {
            "where": difference.where,
            "what": difference.what,
            "recorded": difference.recorded,
            "replayed": difference.replayed,
        },
    }


def _lines(result: Replayed) -> list[str]:
    what = f"{plural(result.loops, 'loop')} with {plural(result.calls, 'recorded answer')}"
    how = "commands executed" if result.executed else "commands not executed"
    lines = [f"replayed {what}, {how}, in {clock(result.seconds)}"]
    difference = result.difference
    if difference is None:
        return [*lines, "equal: prompts, files, scores and decisions are those of the recorded run"]
    return [
        *lines,
        f"first difference: {difference.where}: {difference.what}",
        f"  recorded: {difference.recorded or 'nothing'}",
        f"  replayed: {difference.replayed or 'nothing'}",
    ]
