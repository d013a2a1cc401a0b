"""`ftagent journal repair RUN`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ftagent.cli.common import LogDirOption, RunArgument, YesOption, confirm, open_run
from ftagent.core.errors import JournalDamaged
from ftagent.report.text import clean, plural

if TYPE_CHECKING:
    from pathlib import Path

_SHOWN = 20


def repair(ctx: typer.Context, run: RunArgument, yes: YesOption = False, log_dir: LogDirOption = None) -> None:
    """Cut a damaged journal before its first bad line.

    What follows that line is lost to the run; the damaged journal is kept beside it.
    """
    from ftagent.core import journal

    folder = open_run(ctx, run, log_dir)
    with folder.lock():
        try:
            count = len(journal.read_records(folder.journal))
        except JournalDamaged as damage:
            typer.echo(clean(str(damage)))
            for line in _lost(folder.journal, damage.line):
                typer.echo(line)
            if not confirm("Cut it there?", yes):
                raise typer.Abort() from None
            kept, cut = journal.repair(folder.journal)
            typer.echo(f"kept {plural(kept, 'record')}, cut {plural(cut, 'byte')}; the old journal lies beside the new")
        else:
            typer.echo(f"{folder.journal}: {plural(count, 'record')}, no damage")


def _lost(path: Path, first: int) -> list[str]:
    """What would be cut: line by line, as far as it still reads."""
    from ftagent.core.journal import decode

    lines = path.read_bytes().split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    told = []
    for number, line in enumerate(lines[first - 1 :], start=first):
        try:
            record = decode(line)
        except ValueError as error:
            told.append(f"  line {number}: unreadable ({clean(str(error))[:80]})")
            continue
        loop = getattr(record.event, "loop", None)
        told.append(f"  line {number}: {record.kind}" + ("" if loop is None else f" of loop {loop}"))
    more = [f"  and {len(told) - _SHOWN} more"] if len(told) > _SHOWN else []
    return [f"{plural(len(told), 'line')} would be lost:", *told[:_SHOWN], *more]
