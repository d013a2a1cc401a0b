"""`ftagent report RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ftagent.cli.commands.run import Lang
from ftagent.cli.common import LogDirOption, RunArgument, open_run
from ftagent.core.errors import RequestError

if TYPE_CHECKING:
    from ftagent.core.run_folder import RunFolder
    from ftagent.core.state import State

Format = Literal["md", "html", "json", "optuna"]


def report(
    ctx: typer.Context,
    run: RunArgument,
    format_: Annotated[Format, typer.Option("--format", help="optuna: a study for optuna-dashboard.")] = "md",
    lang: Annotated[
        Lang | None,
        typer.Option("--lang", help="The report on a tuned configuration, in this language."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Write here; nothing in the run changes.")
    ] = None,
    log_dir: LogDirOption = None,
) -> None:
    """Write the report of a run.

    Without --out, md and html are written into the run folder, and json is printed; what is told of a tuned
    configuration goes to docs/reports of the run, or where the run was told to put it.
    """
    folder = open_run(ctx, run, log_dir)
    state = folder.state()
    if lang is not None or format_ == "optuna":
        typer.echo(str(_tuned(folder, state, format_, lang or "en", out)))
        return
    if format_ == "json" and out is None:
        typer.echo(_text(folder, state, format_))
        return
    if out is not None:
        _write(Path(out), _text(folder, state, format_))
        typer.echo(out)
        return
    from ftagent.report import write_report

    paths = write_report(folder, state)
    typer.echo(str(next(path for path in paths if path.suffix == f".{format_}")))


def _text(folder: RunFolder, state: State, format_: Format) -> str:
    """The report as one text that stands alone: figures are embedded in html and left out of md."""
    if format_ == "json":
        import json

        from ftagent.report.writing import report_document

        return json.dumps(report_document(folder, state), indent=2, ensure_ascii=False) + "\n"
    import tempfile

    from ftagent.report.figures import write_figures
    from ftagent.report.html import report_html
    from ftagent.report.markdown import report_markdown
    from ftagent.report.writing import record_of

    if format_ == "md":
        return report_markdown(folder, state, record_of(folder), [])
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        figures = write_figures(state, root / "figures")
        moved = [folder.path / path.relative_to(root) for path in figures]
        return report_html(report_markdown(folder, state, record_of(folder), moved), root)


def _tuned(folder: RunFolder, state: State, format_: Format, lang: Lang, out: str | None) -> Path:
    """What was written. Raises RequestError for a run that tuned nothing."""
    from ftagent.report.html import report_html
    from ftagent.report.tuning import writing
    from ftagent.report.tuning.optuna_study import write_study
    from ftagent.report.writing import record_of

    if format_ == "json":
        raise RequestError("--format json: has no language; leave --lang out")
    study = writing.tuned(folder, state)
    reports = writing.reports_folder(folder, record_of(folder).get("request", {}).get("reports_dir"))
    path = Path(out) if out is not None else writing.new_path(folder, reports, format_)
    try:
        if out is None:
            path.parent.mkdir(parents=True, exist_ok=True)
        if format_ == "optuna":
            return write_study(folder, study, path)
        text = writing.tuning_text(folder, state, lang, path)
        _write(path, text if format_ == "md" else report_html(text, path.parent, "zh" if lang == "zh" else "en"))
    except OSError as error:
        raise RequestError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--out {path}: cannot be written ({error.strerror})") from error
