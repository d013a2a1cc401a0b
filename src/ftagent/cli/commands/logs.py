"""`ftagent logs RUN [LOOP]`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftagent.cli.common import LogDirOption, RunArgument, open_run
from ftagent.cli.parsing import parse_loop
from ftagent.core.errors import RequestError
from ftagent.report.text import printable

if TYPE_CHECKING:
    from ftagent.core.run_folder import RunFolder

_POLL_SECONDS = 0.5
_CHUNK = 1 << 20


def logs(
    ctx: typer.Context,
    run: RunArgument,
    loop: Annotated[str | None, typer.Argument(metavar="[LOOP]", help="A loop number, or baseline.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on printing while the run runs.")] = False,
    log_dir: LogDirOption = None,
) -> None:
    """Print what the commands of a run printed."""
    folder = open_run(ctx, run, log_dir)
    chosen = None if loop is None else ("baseline" if parse_loop(loop) is None else f"Loop_{int(loop)}")
    if chosen is not None and not (folder.path / chosen).is_dir():
        there = ", ".join(_places(folder)) or "none"
        raise RequestError(f"LOOP {loop}: {folder.name} has no log of it; there: {there}")
    seen: dict[Path, int] = {}
    last: Path | None = None
    while True:
        running = follow and folder.holder() is not None
        for path in _files(folder, chosen):
            last = _print_new(folder, path, seen, last)
        if not running:
            return
        time.sleep(_POLL_SECONDS)


def _places(folder: RunFolder) -> list[str]:
    loops = sorted(int(path.name[5:]) for path in folder.path.glob("Loop_*") if path.name[5:].isdecimal())
    first = ["baseline"] if (folder.path / "baseline").is_dir() else []
    return [*first, *(str(loop) for loop in loops)]


def _files(folder: RunFolder, chosen: str | None) -> Iterator[Path]:
    places = [chosen] if chosen else [p if p == "baseline" else f"Loop_{p}" for p in _places(folder)]
    for place in places:
        found = [path for path in (folder.path / place).rglob("*.log") if path.is_file() and not path.is_symlink()]
        yield from sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def _print_new(folder: RunFolder, path: Path, seen: dict[Path, int], last: Path | None) -> Path | None:
    """Print what `path` has grown by; a heading where it is not the file that was printed last."""
    start = seen.get(path, 0)
    with path.open("rb") as stream:
        stream.seek(start)
        while data := stream.read(_CHUNK):
            if path != last:
                typer.echo(f"==> {path.relative_to(folder.path)} <==")
                last = path
            start += len(data)
            typer.echo(printable(data.decode(errors="replace")), nl=False)
    seen[path] = start
    return last
