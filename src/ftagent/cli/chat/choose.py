"""Which model and which adapter a conversation is with."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ftagent.cli.commands.checkpoints import table
from ftagent.core.errors import RequestError
from ftagent.toolkit.checkpoints import FINAL, Checkpoint, Listing, find_checkpoint, list_checkpoints
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.folders import base_of, kind_of

if TYPE_CHECKING:
    from ftagent.settings import Settings

WORDS = ("latest", "best", "final")


@dataclass(frozen=True)
class Choice:
    """`model` is the folder of the base model, or of whole weights where `adapter` is None."""

    model: Path
    adapter: Path | None
    title: str


def choose(model: str, adapter: str | None, training: str | None, settings: Settings) -> Choice:
    """What MODEL, --adapter and --from mean; asks at a terminal where several would do.

    Raises RequestError or ToolkitError where they mean nothing, or several without anybody to ask.
    """
    from ftagent.cli.models import resolve_model_path

    folder = Path(model).expanduser()
    if model and folder.is_dir() and kind_of(folder) in ("run", "training", "adapter"):
        if training is not None:
            raise RequestError(f"--from {training}: {model} is a folder with adapters already; give one of the two")
        return _from_folder(folder, _pick(folder, adapter), settings)
    if adapter is None and training is None:
        path = resolve_model_path(model, settings)
        return Choice(path, None, model)
    if training is not None:
        found = _pick(Path(training).expanduser(), adapter)
    elif adapter in WORDS:
        raise RequestError(f"--adapter {adapter}: of which training? Add --from FOLDER, or give that folder as MODEL")
    else:
        # A folder that is given as an adapter is meant itself: a training's result, not one of its checkpoints.
        found = find_checkpoint(Path(adapter or "").expanduser(), FINAL)
    if found.holds != "adapter":
        raise RequestError(f"{found.path}: holds a whole model, not an adapter; `ftagent chat {found.path}` opens it")
    return Choice(resolve_model_path(model, settings), found.path, f"{model} with {_title(found)}")


def _from_folder(folder: Path, found: Checkpoint, settings: Settings) -> Choice:
    from ftagent.cli.models import resolve_model_path

    if found.holds == "weights":
        return Choice(found.path, None, _title(found))
    base = base_of(found.path) or base_of(folder)
    if not base:
        raise RequestError(f"{found.path}: names no base model; use `ftagent chat BASE --adapter {found.path}`")
    try:
        path = resolve_model_path(base, settings)
    except RequestError as error:
        raise RequestError(
            f"{found.path} was trained on {base!r}, which is not here ({error}); "
            f"use `ftagent chat BASE --adapter {found.path}`"
        ) from error
    return Choice(path, found.path, f"{base} with {_title(found)}")


def _title(found: Checkpoint) -> str:
    words = ", ".join(word for word, holds in (("newest", found.newest), ("best", found.best)) if holds)
    return f"{found.path} ({words})" if words else str(found.path)


def _pick(folder: Path, word: str | None) -> Checkpoint:
    if word is not None:
        return find_checkpoint(folder, word)
    listing = list_checkpoints(folder)
    usable = [item for item in listing.checkpoints if item.usable]
    if len(usable) == 1:
        return usable[0]
    if not usable:
        return find_checkpoint(folder)  # says what there is instead
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        if usable[-1].path == folder and usable[-1].holds == "weights":
            return usable[-1]  # the folder is itself the model that was asked for
        names = ", ".join(_name(item) for item in usable)
        raise RequestError(f"{folder} has several checkpoints: {names}; choose one by --adapter latest|best|NAME")
    return _ask(listing, usable)


def _name(item: Checkpoint) -> str:
    marks = [word for word, holds in (("newest", item.newest), ("best", item.best)) if holds]
    return item.name + (f" ({', '.join(marks)})" if marks else "")


def _ask(listing: Listing, usable: list[Checkpoint]) -> Checkpoint:
    """The best is suggested, else the newest."""
    header, *rows = table(Listing(listing.folder, listing.kind, listing.base, tuple(usable)))
    typer.echo(f"   {header}")
    for number, row in enumerate(rows, 1):
        typer.echo(f"{number:2} {row}")
    preferred = next((item for item in reversed(usable) if item.best), usable[-1])
    while True:
        answer = str(typer.prompt("Which", default=str(usable.index(preferred) + 1))).strip()
        if answer.isdecimal() and 1 <= int(answer) <= len(usable):
            return usable[int(answer) - 1]
        try:
            return find_checkpoint(listing.folder, answer)
        except ToolkitError as error:
            typer.echo(str(error), err=True)
