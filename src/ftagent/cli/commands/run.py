"""`ftagent run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ftagent.cli import complete
from ftagent.cli.common import JsonOption, common, print_json
from ftagent.cli.parsing import parse_gpus, parse_limits, parse_options

if TYPE_CHECKING:
    from ftagent.core.events import Limits
    from ftagent.request import RunRequest
    from ftagent.settings import Settings

AgentName = Literal["auto", "llm", "search", "hybrid"]
Lang = Literal["en", "zh", "both"]
Keep = Literal["best", "all", "none"]
LoopN = Annotated[int | None, typer.Option("--loop-n", metavar="N", help="Loops in all (default 10).")]
StepN = Annotated[int | None, typer.Option("--step-n", metavar="N", help="Steps of this invocation.")]
Timeout = Annotated[str | None, typer.Option(metavar="DUR", help="Wall-clock, such as 90s, 45m, 6h, 2d.")]
Interactive = Annotated[
    bool | None, typer.Option("--interactive/--auto", help="Ask after each loop whether to go on (scenario's choice).")
]
Controls = Annotated[
    bool, typer.Option("--controls", help="Then a random search and plain TPE of as many loops, to compare with.")
]
ReportLang = Annotated[Lang, typer.Option("--report-lang", help="Of the report on a tuned configuration.")]
ReportsDir = Annotated[
    str | None, typer.Option("--reports-dir", metavar="DIR", help="Where that report goes (docs/reports of the run).")
]
BudgetUsd = Annotated[float | None, typer.Option("--budget-usd", metavar="USD", help="Dollars for model calls.")]


def run(  # one parameter per option
    ctx: typer.Context,
    scenario: Annotated[
        str, typer.Option(metavar="NAME", help="What to improve.", autocompletion=complete.scenarios)
    ] = "llm",
    base_model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Hub id, folder, alias or auto.", autocompletion=complete.models),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What to score on.", autocompletion=complete.benchmarks),
    ] = None,
    benchmark_description: Annotated[str | None, typer.Option(metavar="TEXT", help="What it measures.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Training data; repeatable.")] = None,
    competition: Annotated[str | None, typer.Option(metavar="NAME", help="A competition on tables.")] = None,
    script: Annotated[str | None, typer.Option(metavar="FILE", help="The training script to tune.")] = None,
    space: Annotated[str | None, typer.Option(metavar="FILE", help="Its search space.")] = None,
    agent: Annotated[AgentName, typer.Option(help="Who proposes.")] = "auto",
    env: Annotated[
        str, typer.Option(help="Where commands execute: auto, local, docker, conda, or your own module:class.")
    ] = "auto",
    loop_n: LoopN = None,
    step_n: StepN = None,
    timeout: Timeout = None,
    budget_usd: BudgetUsd = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Items per split.")] = None,
    parallel: Annotated[int | None, typer.Option(metavar="N", min=1, help="Experiments at once (1).")] = None,
    gpus: Annotated[str | None, typer.Option(metavar="IDS", help="Such as 0,1, or auto.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same proposals and scores.")] = 0,
    log_dir: Annotated[str | None, typer.Option("--log-dir", metavar="DIR", help="Run folders (log).")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the run folder.")] = None,
    keep: Annotated[Keep, typer.Option(help="Weights to keep.")] = "best",
    option: Annotated[
        list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="Option of the scenario; repeatable.")
    ] = None,
    yes_run_unsandboxed: Annotated[
        bool, typer.Option("--yes-run-unsandboxed", help="Run generated code without a sandbox.")
    ] = False,
    interactive: Interactive = None,
    controls: Controls = False,
    report_lang: ReportLang = "en",
    reports_dir: ReportsDir = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Repeat stages whose result is known.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would happen; start nothing.")] = False,
    json_: JsonOption = False,
) -> int:
    """Improve a model: propose, code, run, feedback, until a limit."""
    from ftagent.request import RunRequest

    limits = parse_limits(loop_n, step_n, timeout, budget_usd)
    options = parse_options(option or ())
    settings = common(ctx).settings()
    # What is not given here stays None: the application fills in what settings say.
    request = RunRequest(
        scenario=scenario,
        base_model=base_model,
        benchmark=benchmark,
        benchmark_description=benchmark_description,
        datasets=tuple(dataset or ()),
        competition=competition,
        script=script,
        space=space,
        agent=agent,
        env=env,
        limits=with_default(limits),
        limit=limit,
        parallel=parallel,
        gpus=parse_gpus(gpus),
        seed=seed,
        log_dir=log_dir or str(settings.finetune.log_path),
        name=name,
        keep=keep,
        options=options,
        yes_run_unsandboxed=yes_run_unsandboxed,
        interactive=interactive,
        controls=controls,
        report_lang=report_lang,
        reports_dir=str(Path(reports_dir).absolute()) if reports_dir else None,
        no_cache=no_cache,
    )
    return _plan(request, settings, json_) if dry_run else _start(ctx, request, settings, json_)


def with_default(limits: Limits) -> Limits:
    """The limits as asked for, with the loops that a new run has where nothing was said."""
    from dataclasses import replace

    from ftagent.core.events import Limits as Defaults

    return replace(limits, loop_n=Defaults().loop_n) if limits.loop_n is None else limits


def _plan(request: RunRequest, settings: Settings, as_json: bool) -> int:
    from ftagent import planning
    from ftagent.cli.watching import prepare_libraries

    prepare_libraries(settings)
    planned = planning.plan(request, settings)
    if as_json:
        print_json(planned.document)
    else:
        for line in (*planned.lines, *(f"note: {note}" for note in settings.notes)):
            typer.echo(line)
    return 0


def _start(ctx: typer.Context, request: RunRequest, settings: Settings, as_json: bool) -> int:
    from ftagent import app
    from ftagent.cli.watching import watch

    return watch(common(ctx), settings, as_json, lambda observer, gate: app.start(request, settings, observer, gate))
