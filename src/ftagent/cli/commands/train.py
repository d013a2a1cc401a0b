"""`ftagent train CONFIG.yaml`."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ftagent.cli.common import JsonOption, common, print_json
from ftagent.report.text import clock

if TYPE_CHECKING:
    from ftagent.cli.common import Common
    from ftagent.cli.progress.training import TrainingDisplay
    from ftagent.settings import Settings
    from ftagent.toolkit.config import TrainConfig

INTERRUPTED = 130
_SLOWEST_UNIT = 1e-9


def train(
    ctx: typer.Context,
    config: Annotated[str, typer.Argument(metavar="CONFIG.yaml", help="Keys of the training.")],
    options: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="KEY=VALUE", help="Set a key; wins over the file.")
    ] = None,
    then: Annotated[
        str, typer.Option(metavar="STEPS", help="Afterwards: evaluate, chat-script, merge, with commas between.")
    ] = "",
    benchmark: Annotated[str, typer.Option(metavar="NAME", help="What `--then evaluate` scores on.")] = "",
    report_to: Annotated[
        Literal["none", "tensorboard", "wandb", "mlflow", "trackio"] | None,
        typer.Option("--report-to", help="Where curves are drawn while it runs."),
    ] = None,
    processes: Annotated[int, typer.Option(metavar="N", min=1, help="Processes that share each step.")] = 1,
    strategy: Annotated[
        str,
        typer.Option(
            metavar="ddp|fsdp|deepspeed-zero2|deepspeed-zero3",
            help="Whether each process has the whole model (ddp) or its part of it.",
        ),
    ] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew, even where there are checkpoints.")] = False,
    json_: JsonOption = False,
) -> int:
    """Fine-tune a model from a YAML file.

    Goes on from the last complete checkpoint when the same training was interrupted.
    """
    from ftagent.cli.afterwards import check_steps, commands, do, parse_steps
    from ftagent.cli.models import prepare_torch, resolve_model_path
    from ftagent.cli.watching import prepare_libraries
    from ftagent.toolkit.config import TrainConfig, load_config

    settings = common(ctx).settings()
    prepare_libraries(settings)
    prepare_torch()
    overrides = [
        *(options or []),
        *([f"then.benchmark={benchmark}"] if benchmark else []),
        *([f"report_to={report_to}"] if report_to else []),
        *([f"strategy={strategy}"] if strategy else []),
    ]
    wanted = load_config(Path(config), TrainConfig, overrides)
    steps = parse_steps(then)
    check_steps(steps, wanted, settings)
    model = wanted.model_path
    wanted = wanted.model_copy(update={"model_path": str(resolve_model_path(model, settings))})
    document: dict[str, Any] = {"schema_version": 1, "output": str(wanted.save_model_path)}
    try:
        document |= _train(wanted, settings, common(ctx), json_, fresh, processes)
    except KeyboardInterrupt:
        typer.echo("error: interrupted; the same command goes on from the last complete checkpoint", err=True)
        return INTERRUPTED
    if not json_:
        _tell(document, wanted, model, bool(steps))
    code = 0
    document["then"] = {}
    for step, words in zip(steps, commands(steps, wanted, model), strict=True):
        code, printed = do(words, common(ctx), json_)
        if code:
            break
        document["then"][step] = printed
    if json_:
        print_json(document)
    return code


def _train(
    config: TrainConfig, settings: Settings, shared: Common, as_json: bool, fresh: bool, processes: int
) -> dict[str, Any]:
    """Train under the display that fits; returns the summary and whether there was nothing left to do."""
    from ftagent.cli import log
    from ftagent.cli.progress.training import choose_training_display
    from ftagent.cli.redacted import redaction

    # They are about the insides of libraries, and nobody who runs a training can act on them.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
    display = choose_training_display(as_json)
    end_log = log.configure(settings.loop.log_format_console, display.log, shared.debug, redaction(settings))
    display.open()
    try:
        if processes > 1:
            return _launch(config, display, fresh, processes)
        from ftagent.toolkit.train import train as run

        losses: list[float] = []
        # Some libraries that draw curves print, too.
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            summary = run(config, _keep_losses(display, losses), fresh)
    finally:
        display.close()
        end_log()
    return _summary(config, losses, summary is None)


def _keep_losses(display: TrainingDisplay, losses: list[float]) -> Any:
    def record(line: dict[str, Any]) -> None:
        if "loss" in line:
            losses.append(line["loss"])
        display.record(line)

    return record


def _summary(config: TrainConfig, losses: list[float], already: bool) -> dict[str, Any]:
    import json

    summary = json.loads((config.save_model_path / "summary.json").read_text(encoding="utf-8"))
    return {"already_complete": already, "summary": summary, "losses": [*losses[:1], *losses[-1:]]}


def _launch(config: TrainConfig, display: TrainingDisplay, fresh: bool, processes: int) -> dict[str, Any]:
    from ftagent.toolkit.launch import launch
    from ftagent.toolkit.logs import log

    losses: list[float] = []
    already: list[bool] = []
    keep = _keep_losses(display, losses)

    def record(line: dict[str, Any]) -> None:
        log(line)
        keep(line)
        already.append(line.get("event") == "already_complete")

    launch(config, processes, fresh, record)
    return _summary(config, losses, any(already))


def _tell(document: dict[str, Any], config: TrainConfig, model: str, goes_on: bool) -> None:
    from ftagent.cli.afterwards import next_commands, shown

    summary, losses = document["summary"], document["losses"]
    speed = summary["tokens"] / max(summary["seconds"], _SLOWEST_UNIT)
    took = f"{clock(summary['seconds'])}, {speed:,.0f} a second"
    parts = [f"{summary['steps']} steps, {summary['tokens']:,} tokens in {took}"]
    if losses:
        parts.append(f"loss {losses[0]:.3f} → {losses[-1]:.3f}")
    if summary.get("best_step") is not None:
        early = ", stopped early" if summary["stopped_early"] else ""
        parts.append(f"validation loss {summary['validation_loss']:.4f} at step {summary['best_step']}{early}")
    state = "was already complete" if document["already_complete"] else "is complete"
    typer.echo(f"{config.save_model_path} {state}: {'; '.join(parts)}")
    if not goes_on:
        typer.echo("next:")
        for words in next_commands(config, model):
            typer.echo(f"  {shown(words)}")
