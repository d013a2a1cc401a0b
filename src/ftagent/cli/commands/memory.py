"""`ftagent memory list` and `ftagent memory clear`."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ftagent.cli.common import JsonOption, YesOption, common, confirm, print_json
from ftagent.report.text import clean, plural

if TYPE_CHECKING:
    from ftagent.agents.lesson_store import Stored


def list_(
    ctx: typer.Context,
    query: Annotated[
        list[str] | None, typer.Argument(metavar="[QUERY]", help="Only lessons that share words with this, best first.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 50,
    json_: JsonOption = False,
) -> None:
    """List what was learned in earlier runs.

    The newest first. Runs with a language model are told the few that fit them best; FTAGENT_MEMORY=False turns it off.
    """
    from ftagent.agents.memory import count, find, memory_path

    settings = common(ctx).settings()
    path = memory_path(settings.finetune.file_path)
    found = find(path, " ".join(query or ()), limit, _note)
    total = count(path)
    if json_:
        lessons = [_document(stored) for stored in found]
        print_json({"path": str(path), "on": settings.chat.memory, "total": total, "lessons": lessons})
        return
    for stored in found:
        typer.echo(f"{time.strftime('%Y-%m-%d', time.localtime(stored.at))}  {clean(stored.lesson.text())}")
    off = "" if settings.chat.memory else "; FTAGENT_MEMORY is False: runs neither read nor write them"
    typer.echo(f"{len(found)} of {plural(total, 'lesson')} in {path}{off}", err=True)


def clear(
    ctx: typer.Context,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Only what was learned in this run: its name or folder.")
    ] = None,
    yes: YesOption = False,
) -> None:
    """Forget what was learned in earlier runs."""
    from ftagent.agents import memory

    path = memory.memory_path(common(ctx).settings().finetune.file_path)
    number = memory.count(path, run, _note)
    if not number:
        typer.echo(f"nothing to forget{f' of run {run}' if run is not None else ''} in {path}")
        return
    if not confirm(f"Forget {plural(number, 'lesson')} in {path}?", yes):
        raise typer.Abort()
    typer.echo(f"forgot {plural(memory.clear(path, run, _note), 'lesson')}")


def _document(stored: Stored) -> dict[str, object]:
    lesson = stored.lesson
    effect = asdict(lesson.effect) if lesson.effect else None
    return {**asdict(lesson), "effect": effect, "at": stored.at, "text": lesson.text()}


def _note(text: str) -> None:
    typer.echo(f"note: {clean(text)}", err=True)
