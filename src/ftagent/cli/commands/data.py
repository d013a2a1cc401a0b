"""`ftagent data convert` and `ftagent data check`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftagent.cli import complete
from ftagent.cli.common import JsonOption, common, print_json
from ftagent.core.errors import RequestError
from ftagent.report.text import plural

if TYPE_CHECKING:
    from ftagent.settings import Settings
    from ftagent.toolkit.data.check import Report
    from ftagent.toolkit.data.lengths import Characters, Tokens

LISTED_IN_JSON = 1000
SplitOption = Annotated[
    str, typer.Option("--split", metavar="SPLIT", help="Rows to take: train, test, train[:100], train[10%:20%].")
]
FromOption = Annotated[str, typer.Option("--from", metavar="FORMAT", help="Format of the rows (default: detected).")]


def convert(
    ctx: typer.Context,
    given: Annotated[str, typer.Argument(metavar="IN", help="File, folder or hub id.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="File: .json, .jsonl, .csv, .tsv or .parquet.")],
    from_: FromOption = "",
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="Format to write (default: that of IN).")] = "",
    split: SplitOption = "train",
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Leave out rows that FORMAT cannot hold, instead of refusing them.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Write training data in another format or kind of file.

    FORMAT is conversations, messages, sharegpt, alpaca, prompt_completion, preference, sharegpt_preference or problems.
    """
    from ftagent.toolkit.data.convert import convert as write

    _prepare(common(ctx).settings())
    done = write(given, Path(out), from_, to, split, leave_out)
    if json_:
        print_json({"schema_version": 1, "input": given, "output": out, "split": split, **asdict(done)})
        return
    typer.echo(f"{out}: {plural(done.rows, 'row')} of {done.written_as}, read as {done.read_as}")
    if done.left_out:
        typer.echo(f"{plural(done.left_out, 'row')} left out: {done.written_as} cannot hold that")


def check(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="File, folder or hub id.")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Count this model's tokens: hub id, folder or alias.",
            autocompletion=complete.models,
        ),
    ] = "",
    map_function: Annotated[
        str, typer.Option("--map-function", metavar="NAME", help="How the model's conversations are written.")
    ] = "auto",
    max_length: Annotated[
        int | None, typer.Option("--max-length", metavar="N", min=1, help="Most tokens of a row (the model's most).")
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option("--against", metavar="FILE", help="Find rows of FILE in it; several times.")
    ] = None,
    split: SplitOption = "train",
    from_: FromOption = "",
    faults: Annotated[int, typer.Option("--faults", metavar="N", min=0, help="Faults shown at most.")] = 20,
    json_: JsonOption = False,
) -> int:
    """Find what is wrong with training data, and tell what is in it.

    Exit code 0: nothing is wrong; 1: faults were found; 2: it cannot be read.
    """  # fmt: skip
    from ftagent.toolkit.data.check import check as look

    settings = common(ctx).settings()
    _prepare(settings)
    measure = _measure(model, map_function, max_length, settings)
    report = look(file, measure, split, from_, against or ())
    if json_:
        print_json(document(report, file, split))
    else:
        from ftagent.cli.data_report import show

        show(report, faults)
    return 1 if report.faults else 0


def _prepare(settings: Settings) -> None:
    from ftagent.cli.watching import prepare_libraries

    prepare_libraries(settings)
    # A progress bar of theirs would tear what we print.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def _measure(model: str, map_function: str, max_length: int | None, settings: Settings) -> Characters | Tokens:
    from ftagent.toolkit.data.lengths import Characters, Tokens

    if model:
        from ftagent.cli.models import prepare_torch, resolve_model_path

        prepare_torch()
        return Tokens(resolve_model_path(model, settings), map_function, max_length)
    if max_length is not None or map_function != "auto":
        option = "--max-length" if max_length is not None else "--map-function"
        raise RequestError(f"{option} counts tokens: add --model")
    return Characters()


def document(report: Report, file: str, split: str) -> dict[str, Any]:
    """What --json prints. At most LISTED_IN_JSON faults are listed; their counts are of all."""

    def numbers(summary: Any) -> dict[str, int] | None:
        return asdict(summary) if summary is not None else None

    return {
        "schema_version": 1,
        "file": file,
        "split": split,
        "format": report.format,
        "kind": report.kind,
        "ok": not report.faults,
        "rows": report.rows,
        "unreadable": report.unreadable,
        "faulty_rows": len({fault.row for fault in report.faults}),
        "fault_count": len(report.faults),
        "fault_counts": report.kinds,
        "faults": [asdict(fault) for fault in report.faults[:LISTED_IN_JSON]],
        "turns": numbers(report.turns),
        "unit": report.unit,
        "max_length": report.limit,
        "lengths": numbers(report.lengths),
        "learnt": numbers(report.learnt),
        "histogram": [asdict(entry) for entry in report.histogram],
        "languages": {"method": "py3langid", "rows": report.languages_of, "counts": report.languages},
    }
