"""What `run` and `resume` share: a display, logs, and how a session's end is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from ftagent.cli import log
from ftagent.cli.asking import Asker, somebody_there
from ftagent.cli.progress import choose, resume_command
from ftagent.cli.redacted import Redacted, redaction
from ftagent.core.run_folder import RunFolder
from ftagent.report.text import clean, clock, dollars, plural

if TYPE_CHECKING:
    from pathlib import Path

    from ftagent.app import Result
    from ftagent.cli.common import Common
    from ftagent.core.observer import Observer
    from ftagent.core.options import Gate
    from ftagent.settings import Settings


def watch(common: Common, settings: Settings, as_json: bool, session: Callable[[Observer, Gate | None], Result]) -> int:
    """Run `session` under the display that fits; returns the exit code. The caller's errors pass through.

    `session` is also told who can be asked between loops; None where nobody can.
    """
    progress = choose(as_json, settings.loop.log_typing_delay)
    redact = redaction(settings)
    end_log = log.configure(settings.loop.log_format_console, progress.log, common.debug, redact)
    prepare_libraries(settings)
    progress.open()
    try:
        for note in settings.notes:
            progress.note(note)
        asker = Asker(progress, redact) if somebody_there() and not as_json else None
        result = session(Redacted(progress, redact), asker)
    finally:
        progress.close()
        end_log()
    if result.error:
        typer.echo(f"error: {clean(redact(result.error))}", err=True)
    if as_json:
        import json

        typer.echo(json.dumps(result.document, ensure_ascii=False))
    else:
        for line in closing(result):
            typer.echo(line)
    return result.exit_code


def prepare_libraries(settings: Settings) -> None:
    """Tell hub libraries what the settings say. They read it when they are imported, which is later than this."""
    # Their progress bars would tear ours.
    for name, value in {**settings.hub.environment(), "TQDM_DISABLE": "1"}.items():
        os.environ.setdefault(name, value)


def closing(result: Result) -> list[str]:
    """The last lines of a session. The very last is the command that goes on, where there is work left."""
    document = result.document
    best = document.get("best") or {}
    loops = plural(int(document.get("loops", 0)), "loop")
    limit = document.get("limit")
    how = f"{limit} is reached" if limit else str(document.get("status"))
    cost, unpriced = float(document.get("cost_usd") or 0), int(document.get("unpriced_calls") or 0)
    paid = f", {dollars(cost, unpriced)} for model calls" if cost or unpriced else ""
    lines = [f"{how}: {loops} in {clock(float(document.get('seconds') or 0))}{paid}"]
    if best.get("verdict") and best.get("validation"):
        what = "nothing beat the baseline" if best.get("loop") is None else f"best is loop {best['loop']}"
        lines.append(f"{what}: {best['verdict']}")
        lines += [_pair(document, split) for split in ("validation", "test") if best.get(split)]
    if (report := result.run / "report.md").is_file():
        lines.append(f"report: {report}")
    if result.tuning_report is not None:
        lines.append(f"tuning report: {result.tuning_report}")
    if result.exit_code == 3 or document.get("status") in {"stopped", "budget", "failed"}:
        lines.append(resume_command(result.run) + (_higher(result.run, limit) if limit else ""))
    return lines


def _higher(run: Path, limit: str) -> str:
    """The option that lets a resumed run get further: twice the total that was reached."""
    limits = RunFolder(run).state().limits
    if limit == "--timeout" and limits.timeout is not None:
        return f" --timeout {2 * limits.timeout:.0f}s"
    if limit == "--budget-usd" and limits.budget_usd is not None:
        return f" --budget-usd {2 * limits.budget_usd:g}"
    return ""


def _pair(document: dict[str, object], split: str) -> str:
    best, base = document["best"], document.get("baseline") or {}
    assert isinstance(best, dict)
    assert isinstance(base, dict)
    return f"  {split}: {_value(best.get(split))}, baseline {_value(base.get(split))}"


def _value(score: dict[str, Any] | None) -> str:
    if not score:
        return "missing"
    low, high = score["ci95"]
    if score["n"] == 1 and low == high:
        return f"{score['value']:.3f} (n 1)"
    return f"{score['value']:.3f} ({low:.3f} to {high:.3f}, n {score['n']})"
