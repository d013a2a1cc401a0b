"""`ftagent chat MODEL`."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftagent.cli import complete
from ftagent.cli.common import JsonOption, common, print_json
from ftagent.core.errors import RequestError

if TYPE_CHECKING:
    from ftagent.cli.chat.choose import Choice
    from ftagent.toolkit.chat import Sampling
    from ftagent.toolkit.chat.loading import Models


def chat(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Hub id, folder, alias, training, run or adapter.", autocompletion=complete.models
        ),
    ],
    adapter: Annotated[
        str | None, typer.Option(metavar="WHICH", help="latest, best, final, a step, or a folder.")
    ] = None,
    training: Annotated[
        str | None, typer.Option("--from", metavar="DIR", help="The training that --adapter is from.")
    ] = None,
    system: Annotated[str, typer.Option(metavar="TEXT", help="System prompt, or a file with it.")] = "",
    max_new_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Longest answer.")] = 512,
    temperature: Annotated[float, typer.Option(metavar="T", min=0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(metavar="P", help="Share of probability to draw from.")] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the random numbers.")] = 0,
    script: Annotated[
        str | None, typer.Option(metavar="FILE", help="Ask what the user asks in this conversation, then end.")
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Write the played conversation.")] = None,
    compare_base: Annotated[
        bool, typer.Option("--compare-base", help="Show the untuned model's answers, too.")
    ] = False,
    thinking: Annotated[
        bool | None, typer.Option("--thinking/--no-thinking", help="Where the chat template has the choice.")
    ] = None,
    json_: JsonOption = False,
) -> int:
    """Talk to a model, tuned or not, or play a preset conversation.

    MODEL is a base model, a merged one, or a folder that a training or a run wrote. /help lists what can be typed.
    """
    from ftagent.cli.chat.choose import choose
    from ftagent.cli.models import prepare_torch
    from ftagent.cli.watching import prepare_libraries
    from ftagent.toolkit.chat import Sampling

    if script is None and (json_ or out is not None):
        raise RequestError(f"{'--json' if json_ else '--out'} needs --script")
    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    words = _system(system)
    settings = common(ctx).settings()
    prepare_libraries(settings)
    prepare_torch()
    # They are about the insides of libraries, and nobody who talks to a model can act on them.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
    choice = choose(model, adapter, training, settings)
    if compare_base and choice.adapter is None:
        raise RequestError(f"--compare-base: {model} is opened without an adapter, so nothing can be turned off")
    try:
        if script is not None:
            _play(choice, Path(script), out, sampling, words, thinking, compare_base, json_)
        else:
            return _talk(choice, sampling, words, thinking, compare_base, settings.finetune.file_path / "chat_history")
    except KeyboardInterrupt:
        typer.echo(err=True)
        return 130
    return 0


def _system(text: str) -> str:
    path = Path(text)
    try:
        # Path.is_file() raises for a text that is longer than a name may be.
        if os.path.isfile(text):  # noqa: PTH113
            return path.read_text(encoding="utf-8").strip()
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError("--system: is not UTF-8") from error
    except (OSError, ValueError) as error:
        raise RequestError(f"--system {text}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if " " not in text and path.suffix in (".txt", ".md"):
        raise RequestError(f"--system {text}: no such file")
    return text


def _models(choice: Choice, thinking: bool | None) -> Models:
    if sys.stderr.isatty():
        typer.echo(f"loading {choice.title} ...", err=True)
    from ftagent.toolkit.chat.loading import Models

    return Models(str(choice.model), choice.adapter, thinking=thinking)


def _play(
    choice: Choice, script: Path, out: str | None, sampling: Sampling, system: str, thinking: bool | None,
    compare: bool, as_json: bool,
) -> None:  # fmt: skip
    from ftagent.cli.chat.view import Player, View
    from ftagent.toolkit.chat import play

    played = play(
        str(choice.model), choice.adapter, script, Path(out) if out is not None else None, sampling=sampling,
        system=system, compare_base=compare, open_models=lambda: _models(choice, thinking),
        show=None if as_json else Player(View(sys.stdout), sampling.max_new_tokens),
    )  # fmt: skip
    if as_json:
        adapter = str(choice.adapter) if choice.adapter is not None else None
        conversations = [item.document() for item in played]
        print_json(
            {"schema_version": 1, "model": str(choice.model), "adapter": adapter, "conversations": conversations}
        )


def _talk(choice: Choice, sampling: Sampling, system: str, thinking: bool | None, compare: bool, history: Path) -> int:
    from ftagent.cli.chat.lines import Lines
    from ftagent.cli.chat.terminal import HELP, Conversation
    from ftagent.cli.chat.view import View

    models = _models(choice, thinking)
    lines = Lines(history, [name.split()[0] for name in HELP])
    if sys.stdin.isatty():
        typer.echo("/help lists what can be typed, Ctrl-D leaves", err=True)
    try:
        well = Conversation(models, sampling, system, compare, View(sys.stdout), lines).run()
        # Whoever is at a terminal has read it; a program has the exit code.
        return 0 if well or sys.stdin.isatty() else 1
    finally:
        lines.close()
