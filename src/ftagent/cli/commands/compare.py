"""`ftagent compare RUN RUN`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ftagent.cli.common import JsonOption, LogDirOption, RunArgument, open_run, print_json
from ftagent.report.text import clock, columns, number

if TYPE_CHECKING:
    from ftagent.core.run_folder import RunFolder


def compare(
    ctx: typer.Context, run: RunArgument, other: RunArgument, log_dir: LogDirOption = None, json_: JsonOption = False
) -> None:
    """Compare two runs."""
    folders = [open_run(ctx, name, log_dir) for name in (run, other)]
    sides = [_side(folder) for folder in folders]
    differing = [key for key in ("scenario", "benchmark", "metric", "limit", "seed") if sides[0][key] != sides[1][key]]
    if json_:
        print_json({"runs": sides, "differ_in": differing})
        return
    rows = [[key.replace("_", " "), *(_cell(key, side[key]) for side in sides)] for key in sides[0] if key != "run"]
    for line in columns(["", *(side["run"] for side in sides)], rows):
        typer.echo(line)
    if {"scenario", "benchmark", "metric", "limit"} & set(differing):
        typer.echo(f"scores do not compare: the runs differ in {', '.join(differing)}")


def _side(folder: RunFolder) -> dict[str, Any]:
    from ftagent.report import views

    state = folder.state()
    request = folder.read_record().get("request", {})
    created, top = state.created, views.leader(state)
    best = views.best(state)
    return {
        "run": str(folder.path),
        "scenario": created.scenario if created else None,
        "base_model": request.get("base_model"),
        "benchmark": request.get("benchmark"),
        "limit": request.get("limit"),
        "metric": created.metric if created else None,
        "seed": created.seed if created else None,
        "status": views.status_of(folder, state),
        "loops": len(state.experiments),
        "baseline": views.summary(state.baseline_scores.get("validation")),
        "best_validation": views.summary(top.validation) if top else None,
        "best_test": best["test"] if best else None,
        "verdict": best["verdict"] if best else None,
        "seconds": round(state.elapsed, 3),
        "cost_usd": state.cost_usd,
    }


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        low, high = value["ci95"]
        if value["n"] == 1 and low == high:
            return f"{number(value['value'])} (n 1)"
        return f"{number(value['value'])} ({number(low)} to {number(high)}, n {value['n']})"
    return clock(value) if key == "seconds" else str(value)
