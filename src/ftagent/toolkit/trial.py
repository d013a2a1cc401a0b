"""`python -P -m ftagent.toolkit.trial trial.json`: one trial of a configuration, watched.

Starts the training script with its parameters, ends it early where the rules of a file say that it cannot win, and
starts it again with less where memory ran out. Standard library alone: it starts as fast as Python does.

trial.json, an object (`Trial` has the defaults): the command, its parameters and how they reach it, the files to watch.
Written here, in the folder of the command: stopped.json {"step", "value", "needs", "rule"} and
adjusted.json {parameter: {"from", "to", "why"}}. The exit code is the script's; 0 where it was stopped early.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from ftagent.toolkit.trial_child import OUT_OF_MEMORY, Child
from ftagent.toolkit.trial_metrics import ADJUSTED
from ftagent.toolkit.trial_rules import Stop, Watcher, read_rules

STOPPED = "stopped.json"
PARAMETERS = "parameters.json"
CONFIG_VARIABLE = "FTAGENT_CONFIG"
MAX_RETRIES = 4


@dataclass
class Trial:
    """What trial.json says. Paths are relative to `folder`, that of `stopping` to the workspace."""

    command: list[str]
    """A leading `python` means the interpreter that runs this."""
    parameters: dict[str, Any] | None = None
    """None: those in the file `config`."""
    passing: str = "none"
    """flags, json, environment, overrides (`-o name=value`), or none."""
    names: dict[str, str] = field(default_factory=dict)
    """Parameter → flag, key or variable; a flag that ends in `=` takes its value in the same word."""
    config: str = "config.json"
    """Where json puts the parameters; the script finds the path in FTAGENT_CONFIG."""
    variables: dict[str, str] = field(default_factory=dict)
    """Further variables of the script."""
    folder: str = "."
    """Where the script runs; made, with `files` of the workspace copied into it."""
    files: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=lambda: ["metrics.jsonl"])
    """Where rows of live metrics may be; the first that exists is read."""
    fresh: list[str] = field(default_factory=lambda: ["metrics.json", "metrics.jsonl"])
    """Files of an earlier try that are deleted before each start; none where the script itself goes on from there."""
    outputs: list[str] = field(default_factory=list)
    """What the script must leave."""
    made: list[str] = field(default_factory=list)
    """Folders that are made where the script did not: the parameters are kept there."""
    refused: str = ""
    """Why nothing is to be started; empty where all is well."""
    stopping: str = "stopping.json"
    """Rules of early stopping; no such file is no rule."""
    memory: dict[str, list[float]] = field(default_factory=dict)
    """Parameters to lower where memory runs out → the least value, or the values that are allowed."""
    memory_mb: int = 0
    """Most memory of the script; 0 is no bound."""


class TrialFault(Exception):
    """trial.json or the workspace is not what it should be; one line."""


def read_trial(path: Path) -> Trial:
    """Raises TrialFault."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrialFault(f"{path}: cannot be read: {error}") from error
    known = {item.name for item in fields(Trial)}
    if not isinstance(given, dict) or not given.get("command") or set(given) - known:
        raise TrialFault(f"{path}: must be an object with `command` and no key but {', '.join(sorted(known))}")
    trial = Trial(**given)
    if trial.parameters is None and trial.passing != "none":
        try:
            trial.parameters = json.loads(Path(trial.folder, trial.config).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrialFault(f"{trial.config}: cannot be read: {error}") from error
    return trial


def text_of(value: Any) -> str:
    """A value as a script reads it on its command line or in a variable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value < 0:
        # argparse takes -1e-05 for a flag, and -0.00001 for a number.
        return f"{Decimal(repr(value)):f}"
    return str(value)


def words(name: str, value: Any) -> list[str]:
    """A flag with its value; a flag alone for true, nothing for false or null."""
    if name.endswith("="):
        return [name + text_of(value)]
    if isinstance(value, bool) or value is None:
        return [name] if value else []
    return [name, text_of(value)]


def started_with(trial: Trial, parameters: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The script's command and further variables; also writes its configuration file where it has one."""
    command = [sys.executable, *trial.command[1:]] if trial.command[0] == "python" else list(trial.command)
    variables = dict(trial.variables)
    if trial.passing == "flags":
        command += [
            word for name, value in parameters.items() for word in words(trial.names.get(name, f"--{name}"), value)
        ]
    elif trial.passing == "overrides":
        command += [word for name, value in parameters.items() for word in ("-o", f"{name}={text_of(value)}")]
    elif trial.passing == "environment":
        variables |= {trial.names.get(name, name.upper()): text_of(value) for name, value in parameters.items()}
    elif trial.passing == "json":
        path = Path(trial.folder, trial.config).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        named = {trial.names.get(name, name): value for name, value in parameters.items()}
        path.write_text(json.dumps(named, indent=1) + "\n", encoding="utf-8")
        variables[CONFIG_VARIABLE] = str(path)
    return command, variables


def lowered(trial: Trial, parameters: dict[str, Any]) -> dict[str, Any]:
    """`parameters` with about half of each that costs memory; the same where none can be lowered."""
    changed = dict(parameters)
    for name, bounds in trial.memory.items():
        value = parameters.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if len(bounds) == 1:
            half = value // 2 if isinstance(value, int) else value / 2
            changed[name] = type(value)(max(bounds[0], half)) if max(bounds[0], half) < value else value
        else:
            below = [bound for bound in bounds if bound < value]
            at_most_half = [bound for bound in below if bound <= value / 2]
            changed[name] = max(at_most_half) if at_most_half else min(below, default=value)
    return changed


def run(trial: Trial) -> int:
    """Run the script to its end, at most 1 + MAX_RETRIES times. Returns the exit code. Raises TrialFault."""
    if trial.refused:
        raise TrialFault(trial.refused)
    folder = Path(trial.folder)
    _lay_out(trial, folder)
    parameters = dict(trial.parameters or {})
    for retry in range(MAX_RETRIES + 1):
        for name in (STOPPED, *trial.fresh):
            with contextlib.suppress(FileNotFoundError):
                (folder / name).unlink()
        watcher = Watcher(read_rules(Path(trial.stopping)) if trial.stopping else None, folder, trial.metrics)
        command, variables = started_with(trial, parameters)
        ended = Child(command, variables, folder, trial.memory_mb).until_end(watcher)
        if ended.stop is not None:
            return _stopped(ended.stop, folder)
        if ended.why != OUT_OF_MEMORY or not trial.memory:
            break
        fewer = lowered(trial, parameters)
        if fewer == parameters or retry == MAX_RETRIES:
            say(f"out of memory, and {_values(trial, parameters)} cannot be lowered further")
            break
        say(f"out of memory with {_values(trial, parameters)}; tried again with {_values(trial, fewer)}")
        parameters = fewer
        _note_adjustment(trial, parameters, folder)
    return ended.code or _kept(trial, folder, parameters)


def _lay_out(trial: Trial, folder: Path) -> None:
    try:
        if trial.folder != ".":
            folder.mkdir(parents=True, exist_ok=True)
            for name in trial.files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(name, folder / name)
        (folder / ADJUSTED).unlink(missing_ok=True)
    except OSError as error:
        raise TrialFault(f"{trial.folder}: cannot be made: {error}") from error


def _values(trial: Trial, parameters: dict[str, Any]) -> str:
    return ", ".join(f"{name} {text_of(parameters.get(name))}" for name in trial.memory)


def _note_adjustment(trial: Trial, parameters: dict[str, Any], folder: Path) -> None:
    before = trial.parameters or {}
    changes = {
        name: {"from": before[name], "to": parameters[name], "why": "out of memory"}
        for name in trial.memory
        if before.get(name) != parameters.get(name)
    }
    (folder / ADJUSTED).write_text(json.dumps(changes) + "\n", encoding="utf-8")


def _stopped(stop: Stop, folder: Path) -> int:
    say(stop.sentence())
    (folder / STOPPED).write_text(json.dumps(stop.document()) + "\n", encoding="utf-8")
    return 0


def _kept(trial: Trial, folder: Path, parameters: dict[str, Any]) -> int:
    for name in trial.made:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / PARAMETERS).write_text(json.dumps(parameters, indent=1) + "\n", encoding="utf-8")
    missing = [name for name in trial.outputs if not (folder / name).exists()]
    if missing:
        say(f"the script ended well and left no {', '.join(missing)}")
    return int(bool(missing))


def say(text: str) -> None:
    """A line among those of the script."""
    sys.stdout.write(f"trial: {text}\n")
    sys.stdout.flush()


def main() -> int:
    """The command line."""
    if len(sys.argv) != 2:
        say("usage: python -P -m ftagent.toolkit.trial trial.json")
        return 2
    try:
        return run(read_trial(Path(sys.argv[1])))
    except TrialFault as error:
        say(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
