"""The table of commands. A command's module is imported when that command runs, so that each starts fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ftagent.cli.common import Common


@dataclass(frozen=True)
class Entry:
    """Where a command lives: `ftagent.cli.commands.<module>`, and its line in the list of commands."""

    module: str
    function: str
    help: str


COMMANDS: Mapping[str, Entry | Mapping[str, Entry]] = {
    "run": Entry("run", "run", "Improve a model: propose, code, run, feedback, until a limit."),
    "resume": Entry("resume", "resume", "Go on with a run, or go back in it and go on from there."),
    "runs": Entry("runs", "runs", "List the runs of the log folder."),
    "show": Entry("show", "show", "Show a run: its experiments, scores and what it selected."),
    "status": Entry("show", "status", "Tell whether a run is running and how far it is."),
    "logs": Entry("logs", "logs", "Print what the commands of a run printed."),
    "stop": Entry("stop", "stop", "Stop a running run cleanly."),
    "report": Entry("report", "report", "Write the report of a run."),
    "replay": Entry("replay", "replay", "Run a recorded run again and tell the first difference."),
    "compare": Entry("compare", "compare", "Compare two runs."),
    "train": Entry("train", "train", "Fine-tune a model from a YAML file."),
    "evaluate": Entry("evaluate", "evaluate", "Score a model on a benchmark."),
    "score": Entry("evaluate", "score", "Score a file of predictions on a benchmark."),
    "data": {
        "check": Entry("data", "check", "Find what is wrong with training data, and tell what is in it."),
        "convert": Entry("data", "convert", "Write training data in another format or kind of file."),
    },
    "check-model": Entry("check_model", "check_model", "Check that a model is whole and what memory it takes."),
    "merge": Entry("merge", "merge", "Add an adapter to the weights of its base model."),
    "push": Entry("push", "push", "Upload a model or an adapter to the hub."),
    "chat": Entry("chat", "chat", "Talk to a model, tuned or not, or play a preset conversation."),
    "checkpoints": Entry("checkpoints", "checkpoints", "List what a training or a run saved, and whether it is whole."),
    "scenarios": Entry("catalogues", "scenarios", "List the scenarios that are installed."),
    "benchmarks": Entry("catalogues", "benchmarks", "List the benchmarks."),
    "models": Entry("catalogues", "models", "List the base models that are known by name."),
    "config": {
        "show": Entry("config", "show", "Show each setting in effect and where it came from."),
    },
    "env": {
        "list": Entry("env", "list_", "List the environments and what they need."),
        "check": Entry("env", "check", "Show that an environment confines and limits what runs in it."),
        "build": Entry("env", "build", "Make the image or the environment that commands run in."),
    },
    "doctor": Entry("doctor", "doctor", "Check this machine: environments, disk, memory, versions, plug-ins, models."),
    "init": Entry("init", "init", "Choose a language model: asks, writes .env, makes one test call."),
    "memory": {
        "list": Entry("memory", "list_", "List what was learned in earlier runs."),
        "clear": Entry("memory", "clear", "Forget what was learned in earlier runs."),
    },
    "prune": Entry("prune", "prune", "Delete the workspaces of a run; its record stays."),
    "journal": {
        "repair": Entry("journal", "repair", "Cut a damaged journal before its first bad line."),
    },
    "version": Entry("version", "version", "Print the version."),
}
GROUP_HELP = {
    "config": "Settings.",
    "data": "Training data.",
    "env": "Where commands execute.",
    "journal": "The record of a run.",
    "memory": "Lessons of earlier runs.",
}


class LazyGroup(TyperGroup):
    """A group that builds a command from its Entry when it is asked for."""

    table: Mapping[str, Entry | Mapping[str, Entry]]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = self.table.get(cmd_name)
        if entry is None:
            return None
        if isinstance(entry, Entry):
            return _command(cmd_name, entry)
        return _group(GROUP_HELP[cmd_name], entry)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in self.table and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, self.table, n=2) or list(self.table)
            ctx.fail(f"no command {name!r}; there {'is' if len(near) == 1 else 'are'} {', '.join(near)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [
            (name, entry.help if isinstance(entry, Entry) else f"{GROUP_HELP[name]} ({', '.join(entry)})")
            for name, entry in self.table.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def build() -> Any:
    """The root command."""
    app = _app(completion=True)
    app.callback(cls=LazyGroup, invoke_without_command=True)(_root)
    root = typer.main.get_command(app)
    assert isinstance(root, LazyGroup)
    root.table = COMMANDS
    return root


def _root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    env_file: Annotated[
        str | None, typer.Option("--env-file", metavar="FILE", help="File of settings (default: .env, upwards).")
    ] = None,
) -> None:
    """ftagent fine-tunes models: propose, code, run, feedback, until the budget is spent.

    RUN is a path, or a name or unique prefix under the log folder, or `last`.
    """
    ctx.obj = Common(debug=debug, env_file=env_file)
    if version:
        from ftagent.cli.commands.version import version as show

        show(json_=False)
    elif ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def _app(completion: bool = False) -> typer.Typer:
    return typer.Typer(rich_markup_mode=None, add_completion=completion, pretty_exceptions_enable=False)


def _group(help_text: str, table: Mapping[str, Entry]) -> LazyGroup:
    app = _app()

    def group(ctx: typer.Context) -> None:
        if ctx.invoked_subcommand is None:
            typer.echo(ctx.get_help())

    app.callback(cls=LazyGroup, invoke_without_command=True, help=help_text)(group)
    built = typer.main.get_command(app)
    assert isinstance(built, LazyGroup)
    built.table = table
    return built


def _command(name: str, entry: Entry) -> Any:
    module = import_module(f"ftagent.cli.commands.{entry.module}")
    app = _app()
    app.command(name)(getattr(module, entry.function))
    command = typer.main.get_command(app)
    command.params.extend(_shared_options())
    return command


def _shared_options() -> list[Any]:
    """--debug and --env-file, which every command takes after its name as well as before."""
    app = _app()
    app.command()(_shared)
    return list(typer.main.get_command(app).params)


def _keep(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    if value and isinstance(ctx.obj, Common):
        setattr(ctx.obj, str(param.name), value)
    return value


def _shared(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks.", expose_value=False, callback=_keep)
    ] = False,
    env_file: Annotated[
        str | None,
        typer.Option("--env-file", metavar="FILE", help="File of settings.", expose_value=False, callback=_keep),
    ] = None,
) -> None:
    """Never runs; its parameters are copied."""
