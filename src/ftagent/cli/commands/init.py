"""`ftagent init`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ftagent.cli.common import Common, common
from ftagent.cli.providers import PROVIDERS, Provider, provider_of, served_models
from ftagent.core.errors import RequestError
from ftagent.report.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LATER = ("tabular",)
_SHORTEST_KEY = 6
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Given:
    """The options, and what is set already."""

    provider: str | None
    model: str | None
    base_url: str | None
    key_from_env: str | None
    asking: bool
    """Whether somebody can be asked."""
    known: Mapping[str, str]
    """What the file and the environment set, by name in upper case."""


def init(
    ctx: typer.Context,
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="NAME", help=", ".join(entry.name for entry in PROVIDERS) + ".")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Chat model.")] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="Address of the endpoint (azure, local).")
    ] = None,
    key_from_env: Annotated[
        str | None, typer.Option("--key-from-env", metavar="VAR", help="Take the key from this variable.")
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option("--scenario", metavar="NAME", help="The scenario of the next command; hpo: write hpo.yaml."),
    ] = None,
    no_test: Annotated[bool, typer.Option("--no-test", help="Make no test call.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace values that are set already.")] = False,
) -> int:
    """Choose a language model: asks, writes .env, makes one test call. `--scenario hpo` writes hpo.yaml too.

    The file is made readable for you alone; what else is in it stays, and a copy is kept. The key is never shown.
    Without a terminal the options have to say everything. Exit code 1 where the test call fails.
    """
    _check_scenario(scenario)
    path = _target(common(ctx))
    given = _Given(provider, model, base_url, key_from_env, sys.stdin.isatty(), _known(path))
    chosen = _provider(given)
    values = _values(chosen, given)
    _settle_conflicts(path, values, given, force)
    _write(path, values)
    _start(scenario, force)
    if chosen.name == "none":
        typer.echo("agent search needs no language model and no key")
    elif not no_test and not _answers(path, values):
        return 1
    typer.echo(f"next: ftagent run --scenario {scenario or 'llm'} --dry-run")
    return 0


def _check_scenario(scenario: str | None) -> None:
    from ftagent.plugins import scenario_names

    names = scenario_names()
    if scenario is None or scenario in names:
        return
    if scenario in _LATER:
        raise RequestError(f"--scenario {scenario}: comes with a later version; leave it out to set up the model alone")
    raise RequestError(f"--scenario {scenario!r}: not installed; valid: {', '.join(names)}")


def _start(scenario: str | None, force: bool) -> None:
    """Write the files that a user of the scenario edits, here; what is there stays unless `force`."""
    from ftagent.plugins import starter_files

    for name, text in starter_files(scenario).items() if scenario else ():
        path = Path.cwd() / name
        if path.exists() and not force:
            same = path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text
            typer.echo(f"{name} is there already and stays as it is" + ("" if same else "; --force replaces it"))
            continue
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RequestError(f"{path}: cannot be written: {error.strerror}") from error
        typer.echo(f"{name} holds what is tuned and how; edit it")


def _target(shared: Common) -> Path:
    """The file in effect, so that a new one below it does not hide what it sets; else ./.env."""
    from ftagent.settings.dotenv import DEFAULT_NAME, find

    if shared.env_file is not None and not Path(shared.env_file).exists():
        return Path(shared.env_file)
    return find(shared.env_file, Path.cwd()) or Path.cwd() / DEFAULT_NAME


def _known(path: Path) -> dict[str, str]:
    from ftagent.settings.dotenv import read

    file = read(path, os.environ) if path.exists() else {}
    environ = {name.upper(): value for name, value in os.environ.items()}
    return {name: value for name, value in {**file, **environ}.items() if value.strip()}


def _provider(given: _Given) -> Provider:
    if given.provider is not None:
        return provider_of(given.provider)
    if not given.asking:
        raise RequestError("nobody to ask here: give --provider, and --model, --base-url, --key-from-env as it needs")
    typer.echo("Which provider serves the language model?")
    for number, provider in enumerate(PROVIDERS, 1):
        typer.echo(f"  {number}  {provider.title}")
    return _repeat(lambda: provider_of(typer.prompt("Number", default="1")))


def _values(provider: Provider, given: _Given) -> dict[str, str]:
    """The variables to set. Everything is asked before anything is written."""
    if provider.name == "none":
        return {"CHAT_MODEL": ""}
    base = _base(provider, given)
    key = _key(provider, given)
    model = _model(provider, given, base, key or given.known.get(provider.key, ""))
    values = {"CHAT_MODEL": provider.model_name(model)}
    if key:
        values[provider.key] = key
    if base:
        values[provider.base] = base
    elif provider.name == "openai":
        # An address that is left from another server would get the key.
        values |= {name: "" for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL") if name in given.known}
    return values


def _base(provider: Provider, given: _Given) -> str:
    if not provider.base:
        if given.base_url is not None:
            raise RequestError(f"--base-url: {provider.name} has a fixed address; --provider local takes one")
        return ""
    if given.base_url is not None:
        return _url(given.base_url)
    known = given.known.get(provider.base, "")
    if not given.asking:
        if known:
            return known
        raise RequestError(f"--provider {provider.name} needs --base-url, such as {provider.base_example}")
    return _repeat(lambda: _url(typer.prompt("Base URL", default=known or provider.base_example)))


def _url(text: str) -> str:
    url = text.strip()
    if not url.startswith(("http://", "https://")) or any(char.isspace() for char in url):
        raise RequestError(f"{url!r} is no address; it starts with http:// or https://")
    return url


def _key(provider: Provider, given: _Given) -> str:
    """The key to write; "" keeps the one that is set, or goes without where that is possible."""
    if given.key_from_env is not None:
        value = os.environ.get(given.key_from_env, "")
        if not value.strip():
            raise RequestError(f"--key-from-env {given.key_from_env}: this variable is not set")
        return _checked(value)
    there = provider.key in given.known
    if not given.asking:
        if there:
            return ""
        if provider.needs_key:
            raise RequestError(f"--provider {provider.name} needs --key-from-env VAR, a variable that holds its key")
        return ""
    hint = ", Enter keeps the one that is set" if there else "" if provider.needs_key else ", Enter for none"
    asked: dict[str, Any] = {} if provider.needs_key and not there else {"default": "", "show_default": False}
    return _repeat(lambda: _checked(typer.prompt(f"Key (hidden{hint})", hide_input=True, **asked)))


def _checked(key: str) -> str:
    """A key without what pasting adds around it. Raises RequestError, which must not show it."""
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise RequestError("this is no key: it has spaces or characters that keys do not have")
    return key


def _model(provider: Provider, given: _Given, base: str, key: str) -> str:
    if given.model is not None:
        if not given.model.strip():
            raise RequestError("--model is empty")
        return given.model.strip()
    served = served_models(base, key) if provider.name == "local" else []
    suggestion = served[0] if served else provider.model
    if given.asking:
        if len(served) > 1:
            typer.echo(f"it serves {', '.join(clean(name) for name in served[:10])}")
        name = "Deployment" if provider.name == "azure" else "Chat model"
        return str(typer.prompt(name, default=suggestion or None)).strip()
    if not suggestion:
        raise RequestError(f"--provider {provider.name} needs --model; the server named none")
    return suggestion


def _settle_conflicts(path: Path, values: Mapping[str, str], given: _Given, force: bool) -> None:
    """Raises RequestError or Abort where a value that is set would be replaced and nobody agreed."""
    from ftagent.settings.dotenv import read

    file = read(path, os.environ) if path.exists() else {}
    other = [name for name, value in values.items() if file.get(name, "").strip() and file[name] != value]
    if not other or force:
        return
    if not given.asking:
        raise RequestError(f"{path}: {', '.join(other)} {'is' if len(other) == 1 else 'are'} set already; --force "
                           "replaces what is there")  # fmt: skip
    if not typer.confirm(f"Replace {', '.join(other)} in {path}?", default=True):
        raise typer.Abort()


def _write(path: Path, values: Mapping[str, str]) -> None:
    from ftagent.settings.dotenv_edit import write

    if any(values.values()) or path.exists():
        copy = write(path, values)
        typer.echo(f"{path} sets {', '.join(name for name, value in values.items() if value) or 'no chat model'}; "
                   "only you can read it")  # fmt: skip
        if copy is not None:
            typer.echo(f"what it was before is in {copy}")
    for name, value in values.items():
        if os.environ.get(name, value) != value:
            typer.echo(f"note: {name} is also set in the environment, which wins over the file", err=True)


def _answers(path: Path, values: Mapping[str, str]) -> bool:
    """Whether the model answers a test call; says so, or what failed."""
    from ftagent.probing import probe
    from ftagent.settings import load

    typer.echo(f"asking {values['CHAT_MODEL']} ...")
    settings = load(str(path), os.environ, Path.cwd())
    sound = True
    for found in probe(settings, only_chat_model=True):
        sound = sound and found.ok
        # Providers may quote the key that they refuse.
        text = clean(found.detail())
        for name, secret in settings.credentials.items():
            if name.endswith("KEY") and len(secret) >= _SHORTEST_KEY:
                text = text.replace(secret.get_secret_value(), "[redacted]")
        typer.echo(f"{found.model}: {text}", err=not found.ok)
    if not sound:
        typer.echo("the test call failed; the settings are written: `ftagent init` changes them, `ftagent doctor` "
                   "tests again", err=True)  # fmt: skip
    return sound


def _repeat(ask: Callable[[], _T]) -> _T:
    """Ask again until the answer can be used."""
    while True:
        try:
            return ask()
        except RequestError as error:
            typer.echo(str(error), err=True)
