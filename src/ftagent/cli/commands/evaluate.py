"""`ftagent evaluate MODEL` and `ftagent score BENCHMARK`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ftagent.cli import complete
from ftagent.cli.common import JsonOption, common, print_json
from ftagent.core.errors import RequestError, ScoreUnavailable
from ftagent.report.text import number, score_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from ftagent.evaluation.benchmark import Benchmark
    from ftagent.evaluation.evaluate import Evaluation
    from ftagent.settings import Settings

SplitName = Literal["validation", "test"]
SplitOption = Annotated[SplitName, typer.Option("--split", help="Items to score on.")]
LimitOption = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Items at most.")]
DetailsOption = Annotated[
    str | None, typer.Option("--details", metavar="OUT", help="Write each item with its grade (JSONL).")
]


def evaluate(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Hub id, folder, alias, training or run.", autocompletion=complete.models),
    ],
    benchmark: Annotated[
        str, typer.Option(metavar="NAME", help="What to score on.", autocompletion=complete.benchmarks)
    ] = "",
    adapter: Annotated[
        str | None,
        typer.Option(metavar="WHICH", help="Folder of an adapter; of a training given as MODEL: latest, best, a step."),
    ] = None,
    split: SplitOption = "validation",
    limit: LimitOption = None,
    runs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Samples per item (1).")] = None,
    env: Annotated[
        str, typer.Option(help="Where to predict: auto, local, docker, conda, or your own module:class.")
    ] = "auto",
    details: DetailsOption = None,
    json_: JsonOption = False,
) -> None:
    """Score a model on a benchmark.

    Questions go into the environment, answers stay out of it.
    """
    from ftagent import app
    from ftagent.cli.watching import prepare_libraries
    from ftagent.request import EvaluateRequest

    settings = common(ctx).settings()
    prepare_libraries(settings)
    _check_details(details)
    chosen = _benchmark(benchmark or settings.finetune.target_benchmark or "", settings)
    tune = settings.finetune
    base, tuning = _asked_for(model, adapter, settings)
    asked = EvaluateRequest(
        model=base,
        adapter=tuning,
        split=split,
        limit=limit or tune.benchmark_limit,
        samples=runs or tune.benchmark_num_runs,
        env=env,
    )
    done, sealed = app.evaluate(chosen, asked, settings, _counter(json_))
    if details is not None:
        done.write_details(Path(details))
    document = {"schema_version": 1, "model": model, "adapter": adapter, "sealed": sealed, **done.document()}
    _print(done, document, json_)


def score(
    ctx: typer.Context,
    benchmark: Annotated[
        str,
        typer.Argument(metavar="BENCHMARK", help="What to score on.", autocompletion=complete.benchmarks),
    ],
    predictions: Annotated[str, typer.Option(metavar="FILE", help="JSONL with id or index, and output.")],
    items: Annotated[
        str | None, typer.Option(metavar="FILE", help="Score on these items (JSONL) instead of the split's.")
    ] = None,
    split: SplitOption = "validation",
    limit: LimitOption = None,
    details: DetailsOption = None,
    json_: JsonOption = False,
) -> None:
    """Score a file of predictions on a benchmark."""
    from ftagent.evaluation.evaluate import score_predictions

    settings = common(ctx).settings()
    _check_details(details)
    chosen = _benchmark(benchmark, settings)
    try:
        done = score_predictions(
            chosen,
            Path(predictions),
            split,
            items_file=Path(items) if items is not None else None,
            limit=limit,
            pass_k=settings.finetune.benchmark_pass_k,
        )
    except ScoreUnavailable as error:
        raise RequestError(f"--predictions {predictions}: {error}") from error
    if details is not None:
        done.write_details(Path(details))
    _print(done, {"schema_version": 1, "predictions": predictions, **done.document()}, json_)


def _asked_for(model: str, adapter: str | None, settings: Settings) -> tuple[str, Path | None]:
    """The model and the adapter that MODEL and --adapter mean; MODEL may be what a training or a run wrote.

    Raises RequestError where there is none, ToolkitError for one that is not whole.
    """
    from ftagent.cli.chat.choose import WORDS, choose
    from ftagent.toolkit.checkpoints import FINAL, find_adapter
    from ftagent.toolkit.folders import kind_of

    if model and kind_of(Path(model).expanduser()) in ("run", "training", "adapter"):
        choice = choose(model, adapter or FINAL, None, settings)
        return str(choice.model), choice.adapter
    if adapter is None:
        return model, None
    folder = Path(adapter).expanduser()
    if adapter in WORDS and not folder.is_dir():
        raise RequestError(f"--adapter {adapter}: of which training? Give its folder as MODEL")
    if kind_of(folder) is None:
        raise RequestError(f"--adapter {adapter}: the folder has no adapter_config.json")
    return model, find_adapter(folder, FINAL)


def _benchmark(name: str, settings: Settings) -> Benchmark:
    from ftagent.contexts import hub_access
    from ftagent.evaluation.registry import resolve_benchmark

    return resolve_benchmark(name, hub_access(settings), settings.finetune.file_path.absolute())


def _counter(as_json: bool) -> Callable[[str], None]:
    """Counts predicted items on one line of a terminal; silent elsewhere."""
    from ftagent.cli.progress.losses import items_done

    def watch(line: str) -> None:
        done = items_done(line)
        if done:
            end = "\r\x1b[K" if done[0] == done[1] else ""
            sys.stderr.write(f"\rpredicted {done[0]} of {done[1]}{end}")
            sys.stderr.flush()

    return watch if sys.stderr.isatty() and not as_json else lambda line: None


def _check_details(details: str | None) -> None:
    """Before anything long: --details must be a place where a file can be."""
    if details is None:
        return
    path = Path(details)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise RequestError(f"--details {details}: not a file in a folder that exists")


def _print(done: Evaluation, document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    typer.echo(f"{done.benchmark}, {done.split}: {done.score.metric} {score_text(done.score, items=True)}")
    for name, value in done.score.details.items():
        typer.echo(f"  {name} {number(value)}")
    for name, count in done.score.errors.items():
        typer.echo(f"  {count} wrong: {name}")
    if document.get("sealed") is False:
        typer.echo("not sealed: predicting could read the answers or the network")
