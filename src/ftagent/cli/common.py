"""What every command shares: global options, where the log folder is, and how to find a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftagent.core.errors import RequestError

if TYPE_CHECKING:
    from ftagent.core.run_folder import RunFolder
    from ftagent.settings import Settings


@dataclass
class Common:
    """The global options."""

    debug: bool = False
    env_file: str | None = None

    def settings(self) -> Settings:
        """Everything users set. Imports pydantic: commands that only read runs use `log_folder` instead."""
        from ftagent.settings import load

        return load(self.env_file, os.environ, Path.cwd())

    def log_folder(self, option: str | None) -> Path:
        """Where run folders are: `option`, else FT_LOG_PATH from the environment or `.env`, else ./log."""
        if option:
            return Path(option)
        from ftagent.settings.dotenv import find, read

        for name, value in os.environ.items():
            if name.upper() == "FT_LOG_PATH" and value.strip():
                return Path(value).expanduser()
        path = find(self.env_file, Path.cwd())
        value = read(path, os.environ).get("FT_LOG_PATH", "").strip() if path else ""
        return Path(value or "log").expanduser()


def common(ctx: typer.Context) -> Common:
    """The global options of this invocation."""
    assert isinstance(ctx.obj, Common)
    return ctx.obj


def open_run(ctx: typer.Context, run: str, log_dir: str | None) -> RunFolder:
    """The folder of RUN. Raises RequestError where it names none or several."""
    from ftagent.core.run_folder import find

    try:
        return find(common(ctx).log_folder(log_dir), run)
    except OSError as error:
        raise RequestError(f"{run!r}: not the name of a run ({error.strerror})") from error


def complete_runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of runs, newest first, for the shell."""
    folder = Common().log_folder(ctx.params.get("log_dir"))
    try:
        names = sorted((path.parent.name for path in folder.glob("*/journal.jsonl")), reverse=True)
    except OSError:
        return []
    return [name for name in [*names, "last"] if name.startswith(incomplete)]


RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Path, name, unique prefix, or last.", autocompletion=complete_runs)
]
LogDirOption = Annotated[str | None, typer.Option("--log-dir", metavar="DIR", help="Folder of the runs.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def confirm(question: str, yes: bool) -> bool:
    """Ask, unless `yes`. Raises RequestError where nobody can answer."""
    import sys

    if yes:
        return True
    if not sys.stdin.isatty():
        raise RequestError(f"{question} Nobody to ask here: add --yes")
    return typer.confirm(question)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    import json

    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
