"""`ftagent show RUN` and `ftagent status RUN`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftagent.cli.common import JsonOption, LogDirOption, RunArgument, open_run, print_json
from ftagent.core.errors import RequestError
from ftagent.core.usage import Spending, usage
from ftagent.report.model_calls import HEADER, cells, one_line
from ftagent.report.text import clean, clock, columns, dollars, plural, quantity, score_text, shorten, sparkline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ftagent.core.run_folder import RunFolder
    from ftagent.core.state import State
    from ftagent.core.types import Experiment
    from ftagent.core.usage import Usage


def show(
    ctx: typer.Context,
    run: RunArgument,
    loop: Annotated[int | None, typer.Option("--loop", metavar="N", help="Only this loop, in full.")] = None,
    log_dir: LogDirOption = None,
    json_: JsonOption = False,
) -> None:
    """Show a run: its experiments, scores and what it selected."""
    from ftagent.report import views

    folder = open_run(ctx, run, log_dir)
    state = folder.state()
    if loop is not None and not 0 <= loop < len(state.experiments):
        raise RequestError(f"--loop {loop}: {folder.name} has {plural(len(state.experiments), 'loop')}, from 0")
    if json_:
        request = folder.read_record().get("request", {})
        whole = views.show_document(folder, state, request)
        print_json(whole if loop is None else whole["experiments"][loop])
    elif loop is None:
        _overview(folder, state)
    else:
        _one(state.experiments[loop], usage(state).by_loop_and_role.get(loop, {}))


def _overview(folder: RunFolder, state: State) -> None:
    from ftagent.report.tree import tree_lines
    from ftagent.report.views import status_of

    created = state.created
    if created is None:
        typer.echo(f"{folder.path}: nothing has happened yet")
        return
    baseline = state.baseline_scores
    typer.echo(f"{folder.path}: {created.scenario}, {status_of(folder, state)}, seed {created.seed}")
    measured = score_text(baseline.get("validation"), True)
    typer.echo(f"{created.metric} ({created.direction}) of the baseline: {measured}")
    used = usage(state)
    costs = ("COST", "CALLS", "TOKENS") if used.total.calls else ()
    header = ("LOOP", "PARENT", "DECISION", created.metric.upper(), "TIME", *costs, "HYPOTHESIS")
    rows = [_row(item, used) for item in state.experiments]
    if rows:
        typer.echo("")
        for line in [*columns(header, rows), "", *tree_lines(state), ""]:
            typer.echo(line)
    if costs:
        table = [[role, *cells(some)] for role, some in used.by_role.items()]
        for line in [*columns(("ROLE", *(name.upper() for name in HEADER)), table), ""]:
            typer.echo(line)
    if state.selected is not None:
        chosen = state.selected
        what = "the baseline" if chosen.loop is None else f"loop {chosen.loop}"
        typer.echo(f"selected {what}: {chosen.verdict} ({clean(chosen.reason)})")
        if chosen.loop is not None:
            scores = state.experiments[chosen.loop].scores
            typer.echo(
                f"test: {score_text(scores.get('test'), True)}, baseline {score_text(baseline.get('test'), True)}; "
                f"opened {plural(state.test_openings, 'time')}"
            )
    if not created.sealed:
        typer.echo("not sealed: commands of this run could read the answers or the network")
    typer.echo(budget_line(state))


def _row(item: Experiment, used: Usage) -> list[str]:
    mine = used.by_loop.get(item.loop, Spending())
    costs = [dollars(item.cost_usd, mine.unpriced_calls), str(mine.calls), quantity(mine.tokens)]
    return [
        str(item.loop),
        "-" if item.hypothesis.parent is None else str(item.hypothesis.parent),
        item.feedback.decision if item.feedback else f"at {item.last_step}",
        score_text(item.validation) if item.validation or item.feedback else "-",
        clock(item.seconds),
        *(costs if used.total.calls else ()),
        shorten(item.hypothesis.title, 60),
    ]


def _one(item: Experiment, asked: Mapping[str, Spending]) -> None:
    idea = item.hypothesis
    parent = "the baseline" if idea.parent is None else f"loop {idea.parent}"
    typer.echo(f"loop {item.loop} ({idea.kind} of {parent}): {clean(idea.title)}")
    typer.echo(f"  reason: {clean(idea.reason)}")
    if idea.expected_effect:
        typer.echo(f"  expected: {clean(idea.expected_effect)}")
    for name, value in idea.params.items():
        typer.echo(f"  {clean(name)} = {clean(str(value))}")
    typer.echo(f"files ({plural(item.attempts, 'attempt')}): {', '.join(clean(name) for name in item.files) or 'none'}")
    header = ("STAGE", "PURPOSE", "END", "TIME", "PEAK MB")
    rows = [
        [r.execution.stage, r.purpose, r.execution.end, clock(r.execution.seconds), f"{r.execution.peak_mb or 0:.0f}"]
        for r in item.stages
    ]
    for line in columns(header, rows) if rows else []:
        typer.echo(f"  {line}")
    if item.losses:
        losses = [loss for _, loss in item.losses]
        typer.echo(f"loss: {losses[0]:.4g} {sparkline(losses, 40)} {losses[-1]:.4g}")
    typer.echo(f"validation: {score_text(item.validation, True)}")
    if item.failure:
        typer.echo(f"failure: {clean(item.failure)}")
    if asked:
        typer.echo(f"language model: {one_line(asked)}")
    if item.feedback:
        typer.echo(f"decision: {item.feedback.decision}: {clean(item.feedback.reason)}")
        for text in item.feedback.observations:
            typer.echo(f"  - {clean(text)}")
        if item.feedback.next:
            typer.echo(f"next: {clean(item.feedback.next)}")


def budget_line(state: State) -> str:
    """`loops 3/10, steps 12, time 8:32/45:00, $0.12/0.50`."""
    limits = state.limits
    parts = [
        f"loops {len(state.experiments)}" + (f"/{limits.loop_n}" if limits.loop_n is not None else ""),
        f"steps {state.steps_done}",
        f"time {clock(state.elapsed)}" + (f"/{clock(limits.timeout)}" if limits.timeout is not None else ""),
        _cost(state),
    ]
    return ", ".join(parts)


def _cost(state: State) -> str:
    text = dollars(state.cost_usd, state.unpriced_calls, state.limits.budget_usd)
    return text if text.startswith("$") else f"cost {text}"


def status(ctx: typer.Context, run: RunArgument, log_dir: LogDirOption = None, json_: JsonOption = False) -> None:
    """Tell whether a run is running and how far it is."""
    from ftagent.report import views

    folder = open_run(ctx, run, log_dir)
    state = folder.state()
    holder = folder.holder()
    last = state.experiments[-1] if state.experiments else None
    top = views.leader(state)
    document: dict[str, Any] = {
        "run": str(folder.path),
        "status": views.status_of(folder, state),
        "holder": {"pid": holder.pid, "host": holder.host, "since": holder.since} if holder else None,
        "loop": last.loop if last else None,
        "last_step": last.last_step if last else None,
        "baseline": views.summary(state.baseline_scores.get("validation")),
        "best": views.summary(top.validation) if top else None,
        "budget": views.budget(state),
    }
    if json_:
        print_json(document)
        return
    held = f" (held by {holder})" if holder else ""
    typer.echo(f"{folder.path}: {document['status']}{held}")
    typer.echo(f"loop {last.loop}, {last.last_step} done" if last else "no loop yet")
    typer.echo(f"baseline {score_text(state.baseline_scores.get('validation'))}")
    if top:
        typer.echo(f"best so far, loop {top.loop}: {score_text(top.validation)}")
    typer.echo(budget_line(state))
    if document["status"] == "interrupted":
        typer.echo(f"ftagent resume {folder.path}")
