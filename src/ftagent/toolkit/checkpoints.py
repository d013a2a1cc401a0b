"""What a training, a run or an adapter folder holds that can be loaded, and which of it is the newest and the best."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.files import MARKER, sha256
from ftagent.toolkit.folders import CHECKPOINTS, Holds, Kind, base_of, kind_of, read_object, what_it_holds

State = Literal["complete", "incomplete", "damaged", "unmarked"]
"""`unmarked`: made by something that leaves no marker, so that nothing vouches for its files."""

BEST = "best.json"
FINAL = "final"


@dataclass(frozen=True)
class Checkpoint:
    """One thing to load. `written_at` is in seconds since 1970, `bytes` counts its files.

    `problem` says in one line why it is not complete. `validation` is (metric, value).
    """

    name: str
    path: Path
    holds: Holds
    state: State
    problem: str
    step: int | None
    loss: float | None
    validation: tuple[str, float] | None
    bytes: int
    written_at: float
    newest: bool = False
    best: bool = False

    @property
    def usable(self) -> bool:
        """Whether it may be loaded."""
        return self.holds != "state" and self.state in ("complete", "unmarked")


@dataclass(frozen=True)
class Listing:
    """What is in `folder`, oldest first; the final result comes last. `base` names its base model, "" if unknown."""

    folder: Path
    kind: Kind
    base: str
    checkpoints: tuple[Checkpoint, ...]


def list_checkpoints(folder: Path) -> Listing:
    """Everything in a training, run, adapter or model folder, verified against its markers.

    Raises ToolkitError where `folder` is none of these.
    """
    kind = kind_of(folder)
    if kind is None:
        what = "no such folder" if not folder.is_dir() else "neither a training, a run, an adapter nor a model"
        raise ToolkitError(f"{folder}: {what}; give the save_model_path of a training, or a run's folder")
    if kind == "run":
        found = [_read(folder / "best", "best", marked=False)] if (folder / "best").is_dir() else []
        found = [replace(item, best=True) for item in found]
    elif kind == "training":
        found = _of_training(folder)
    else:
        found = [_read(folder, kind, marked=False)]
    return Listing(folder, kind, base_of(folder), tuple(_with_newest(found)))


def find_checkpoint(folder: Path, which: str | Path = "latest") -> Checkpoint:
    """The checkpoint that `which` means: latest, best, final, the name or step of one, or a path of its own.

    Never one that is incomplete or damaged. Raises ToolkitError that says what there is instead.
    """
    word = str(which)
    listing = list_checkpoints(folder) if folder.is_dir() or word in ("latest", "best", FINAL) else None
    if listing is not None:
        named = _named(listing, word)
        if named is not None:
            return _checked(named)
    path = Path(which).expanduser()
    if path.is_dir() and path.resolve() != folder.resolve():
        return find_checkpoint(path, "latest")
    raise ToolkitError(f"{word!r}: no such checkpoint in {folder}; {_what_there_is(listing)}")


def find_adapter(folder: Path, which: str | Path = "latest") -> Path:
    """The folder of the adapter that `which` means, as for `find_checkpoint`.

    Raises ToolkitError also for weights of a whole model.
    """
    found = find_checkpoint(folder, which)
    if found.holds != "adapter":
        raise ToolkitError(f"{found.path}: holds the weights of a whole model, not an adapter")
    return found.path


def _of_training(folder: Path) -> list[Checkpoint]:
    steps = sorted((folder / CHECKPOINTS).glob("step-*"))
    measured = _measured(folder / "metrics.jsonl")
    found = [_with_measures(_read(step, step.name, marked=True), measured) for step in steps if step.is_dir()]
    final = _with_measures(_read(folder, FINAL, marked=True), measured)
    if final.holds != "state":
        found.append(final)
    best = read_object(folder / CHECKPOINTS / BEST)
    if isinstance(best.get("step"), int):
        value = _figure(best.get("value"))
        named = None if value is None else (str(best.get("metric", "validation_loss")), value)
        return [
            replace(item, best=True, validation=item.validation or named) if item.step == best["step"] else item
            for item in found
        ]
    scored = [item for item in found if item.usable and item.validation]
    winner = min(scored, key=lambda item: item.validation[1] if item.validation else 0.0, default=None)
    return [replace(item, best=item is winner) for item in found]


def _read(folder: Path, name: str, marked: bool) -> Checkpoint:
    """`marked`: whether a missing marker means that something was cut short."""
    progress, summary = read_object(folder / "progress.json"), read_object(folder / "summary.json")
    state, problem = _verify(folder, marked or (folder / "progress.json").is_file())
    files = [path for path in folder.rglob("*") if path.is_file() and CHECKPOINTS not in path.relative_to(folder).parts]
    # A result has the weights of the best step where a later one was worse.
    step = progress.get("step", summary.get("best_step") or summary.get("steps"))
    marker = folder / MARKER
    return Checkpoint(
        name=name,
        path=folder,
        holds=what_it_holds(folder),
        state=state,
        problem=problem,
        step=step if isinstance(step, int) else None,
        loss=_figure(progress.get("loss", summary.get("loss"))),
        validation=_validation(progress) or _validation(summary),
        bytes=sum(path.stat().st_size for path in files),
        written_at=(marker if marker.is_file() else folder).stat().st_mtime,
    )


def _verify(folder: Path, marked: bool) -> tuple[State, str]:
    """Whether every file still is what the marker says. Documentation may be written anew: nothing loads it."""
    if not (folder / MARKER).is_file():
        return ("incomplete", f"{MARKER} is missing") if marked else ("unmarked", f"no {MARKER} vouches for it")
    files = read_object(folder / MARKER).get("files")
    if not isinstance(files, dict) or not files:
        return "damaged", f"{MARKER} does not read"
    for name, digest in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return "damaged", f"{MARKER} names {name!r} outside of the folder"
        if name.endswith(".md"):
            continue
        try:
            if sha256(path) != digest:
                return "damaged", f"{name} is not what was written"
        except OSError:
            return "damaged", f"{name} is missing"
    return "complete", ""


def _with_measures(found: Checkpoint, measured: Mapping[int, Mapping[str, Any]]) -> Checkpoint:
    """With the loss and the validation of the same step in metrics.jsonl, where the checkpoint does not tell."""
    step = found.step if found.step is not None else max(measured, default=None) if found.name == FINAL else None
    line = measured.get(step, {}) if step is not None else {}
    loss = found.loss if found.loss is not None else _figure(line.get("loss"))
    return replace(found, step=step, loss=loss, validation=found.validation or _validation(line))


def _measured(path: Path) -> dict[int, dict[str, Any]]:
    """Step → all that the lines of metrics.jsonl say of it. A torn line is left out."""
    found: dict[int, dict[str, Any]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            found.setdefault(values["step"], {}).update(values)
    return found


def _validation(values: Mapping[str, Any]) -> tuple[str, float] | None:
    for name, value in values.items():
        figure = _figure(value)
        if name.startswith("validation_") and figure is not None:
            return name, figure
    return None


def _with_newest(found: list[Checkpoint]) -> list[Checkpoint]:
    usable = [index for index, item in enumerate(found) if item.usable]
    return [replace(item, newest=bool(usable) and index == usable[-1]) for index, item in enumerate(found)]


def _named(listing: Listing, word: str) -> Checkpoint | None:
    """What `word` names; None where it is no word for any."""
    items = listing.checkpoints
    if items and listing.kind != "training" and word in ("latest", "best", FINAL):
        return items[0]
    if word == "latest":
        return next((item for item in items if item.newest), None)
    if word == "best":
        # A result that has the same weights has the tokenizer, too.
        best = [item for item in items if item.best]
        return next((item for item in reversed(best) if item.usable), best[-1] if best else None)
    step = re.fullmatch(r"(?:step-)?0*(\d+)", word)
    names = {word, f"step-{int(step[1]):08d}"} if step else {word}
    return next((item for item in items if item.name in names), None)


def _checked(found: Checkpoint) -> Checkpoint:
    if found.holds == "state":
        raise ToolkitError(f"{found.path}: holds nothing that can be loaded, only what a training goes on from")
    if not found.usable:
        raise ToolkitError(f"{found.path}: {found.state}: {found.problem}; it is not loaded")
    return found


def _what_there_is(listing: Listing | None) -> str:
    if listing is None:
        return "no such folder either"
    if not listing.checkpoints:
        return "it has none"
    return "there are " + ", ".join(
        item.name + ("" if item.state in ("complete", "unmarked") else f" ({item.state})")
        + (" (best)" if item.best else "") for item in listing.checkpoints
    )  # fmt: skip


def _figure(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
