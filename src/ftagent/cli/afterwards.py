"""`ftagent train --then`: what is done with the result, each step as a command of its own."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ftagent.core.errors import RequestError

if TYPE_CHECKING:
    from ftagent.cli.common import Common
    from ftagent.settings import Settings
    from ftagent.toolkit.config import TrainConfig

STEPS = ("evaluate", "chat-script", "merge")


def parse_steps(text: str) -> tuple[str, ...]:
    """The steps of `--then`, in their order. Raises RequestError for an unknown one, or one given twice."""
    steps = [word.strip() for word in text.split(",") if word.strip()]
    for step in steps:
        if step not in STEPS:
            near = get_close_matches(step, STEPS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(STEPS)}"
            raise RequestError(f"--then: no step {step!r}; {hint}")
        if steps.count(step) > 1:
            raise RequestError(f"--then: {step} is given twice")
    return tuple(steps)


def check_steps(steps: Sequence[str], config: TrainConfig, settings: Settings) -> None:
    """Raises RequestError or ToolkitError for what could not be done after the training, before it begins."""
    then = config.then
    if "evaluate" in steps:
        from ftagent.contexts import hub_access
        from ftagent.evaluation.registry import resolve_benchmark

        if not then.benchmark:
            raise RequestError("--then evaluate needs a benchmark: --benchmark NAME, or `then: {benchmark: NAME}`")
        resolve_benchmark(then.benchmark, hub_access(settings), settings.finetune.file_path.absolute())
    if "chat-script" in steps:
        _check_script(then.script, then.answers)
    if "merge" in steps:
        _check_merge(config)


def _check_script(script: Path | None, answers: Path | None) -> None:
    from ftagent.toolkit.chat.conversations import read_scripts

    if script is None:
        raise RequestError("--then chat-script needs a conversation: `then: {script: FILE}`")
    if not script.is_file():
        raise RequestError(f"then.script: {script}: no such file")
    read_scripts(script)
    if answers is not None and (answers.is_dir() or not answers.absolute().parent.is_dir()):
        raise RequestError(f"then.answers: {answers}: not a file in a folder that exists")


def _check_merge(config: TrainConfig) -> None:
    out = config.then.merge_path
    if out is None:
        raise RequestError("--then merge needs a folder: `then: {merge_path: DIR}`")
    if config.method == "full":
        raise RequestError("--then merge: method full writes whole weights, so there is nothing to merge")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"then.merge_path: {out}: is there already")


def commands(steps: Sequence[str], config: TrainConfig, model: str) -> list[list[str]]:
    """The words of each step's command. `model`: the base as the user named it."""
    then, out = config.then, str(config.save_model_path)
    full = config.method == "full"
    tuned = [out] if full else [model, "--adapter", out]
    limit = [] if then.limit is None else ["--limit", str(then.limit)]
    answers = [] if then.answers is None else ["--out", str(then.answers)]
    known = {
        "evaluate": ["evaluate", *tuned, "--benchmark", then.benchmark, "--split", then.split, *limit],
        "chat-script": ["chat", *tuned, "--script", str(then.script), *answers],
        "merge": ["merge", model, out, str(then.merge_path), "--dtype", then.merge_dtype],
    }
    return [known[step] for step in steps]


def next_commands(config: TrainConfig, model: str) -> list[list[str]]:
    """What one would do next with a result."""
    out = str(config.save_model_path)
    tuned = [out] if config.method == "full" else [model, "--adapter", out]
    merging = [] if config.method == "full" else [["merge", model, out, f"{out.rstrip('/')}-merged"]]
    return [["chat", *tuned], ["evaluate", *tuned, "--benchmark", config.then.benchmark or "NAME"], *merging]


def shown(words: Sequence[str]) -> str:
    """A command as one types it."""
    return shlex.join(["ftagent", *words])


def do(words: list[str], common: Common, as_json: bool) -> tuple[int, Any]:
    """Run a command in this process; returns its exit code and, `as_json`, the document that it printed."""
    from ftagent.cli import run

    shared = [*(["--debug"] if common.debug else []), *(["--env-file", common.env_file] if common.env_file else [])]
    if not as_json:
        typer.secho(f"\n{shown(words)}", bold=True)
        return run([*words, *shared]), None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = run([*words, *shared, "--json"])
    return code, json.loads(printed.getvalue()) if code == 0 else None
