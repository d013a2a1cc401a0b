"""`ftagent runs`."""

from __future__ import annotations

import time
from typing import Any

import typer

from ftagent.cli.common import JsonOption, LogDirOption, common, print_json
from ftagent.report.text import clock, columns, number


def runs(ctx: typer.Context, log_dir: LogDirOption = None, json_: JsonOption = False) -> None:
    """List the runs of the log folder."""
    from ftagent.core.run_folder import all_runs
    from ftagent.report.views import run_row

    folder = common(ctx).log_folder(log_dir)
    rows = [run_row(run) for run in all_runs(folder)]
    if json_:
        print_json({"log_dir": str(folder), "runs": rows})
        return
    if not rows:
        typer.echo(f"no runs in {folder}")
        return
    header = ("RUN", "SCENARIO", "STATUS", "LOOPS", "METRIC", "BASELINE", "BEST", "VERDICT", "TIME", "STARTED")
    for line in columns(header, [_row(row) for row in rows]):
        typer.echo(line)
    for row in rows:
        if row["problem"]:
            typer.echo(row["problem"], err=True)


def _row(row: dict[str, Any]) -> list[str]:
    started = row["started_at"]
    return [
        row["name"],
        row["scenario"] or "-",
        row["status"],
        "-" if row["loops"] is None else str(row["loops"]),
        row["metric"] or "-",
        number(row["baseline"]["value"]) if row["baseline"] else "-",
        number(row["best"]["value"]) if row["best"] else "-",
        row["verdict"] or "-",
        clock(row["seconds"]) if row["seconds"] is not None else "-",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(started)) if started else "-",
    ]
