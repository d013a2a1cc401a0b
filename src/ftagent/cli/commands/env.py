"""`ftagent env list`, `ftagent env check` and `ftagent env build`."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftagent.cli.common import JsonOption, common, print_json
from ftagent.core.errors import RequestError
from ftagent.report.text import clean

if TYPE_CHECKING:
    from ftagent.environments.conformance import Result

ScenarioOption = Annotated[
    str, typer.Option("--scenario", metavar="NAME", help="Whose packages are wanted: llm, tabular, hpo.")
]
MARKS = {"pass": "ok  ", "fail": "FAIL", "not applicable": "--  "}


def list_(ctx: typer.Context, scenario: ScenarioOption = "llm", json_: JsonOption = False) -> None:
    """List the environments and what they need."""
    from ftagent.environments.choosing import choose, places, stack_of

    settings = common(ctx).settings()
    found = places(settings, stack_of(scenario))
    auto = choose("auto", settings, scenario, _progress).environment.name
    if json_:
        print_json({"auto": auto, "environments": [asdict(place) for place in found]})
        return
    for place in found:
        typer.echo(f"{place.name:8} {place.state:14} {clean(place.detail)}")
        if place.hint:
            typer.echo(f"{'':23} {clean(place.hint)}")
    typer.echo(f"`--env auto` is {auto} here")


def check(
    ctx: typer.Context,
    kind: Annotated[
        str, typer.Argument(metavar="[NAME]", help="auto, local, docker, conda or your own module:class.")
    ] = "auto",
    scenario: ScenarioOption = "llm",
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="CHECK", help="Only this check; may be given several times.")
    ] = None,
    json_: JsonOption = False,
) -> int:
    """Show that an environment confines and limits what runs in it.

    By executing hostile commands, which takes a minute or two. Exit code 1 where a check fails.
    """
    from ftagent.environments import conformance
    from ftagent.environments.choosing import choose

    settings = common(ctx).settings()
    environment = choose(kind, settings, scenario, _progress).environment
    ready = getattr(environment, "ready", None)
    if ready is not None and not ready():
        raise RequestError(f"{environment.name}: nothing to check yet; `ftagent env build {environment.name}` makes it")
    checks = [found for found in conformance.all_checks() if not only or found.name in only]
    if unknown := sorted(set(only or ()) - {found.name for found in checks}):
        names = ", ".join(found.name for found in conformance.all_checks())
        raise RequestError(f"--only {unknown[0]}: no such check; there are: {names}")
    folder = Path(tempfile.mkdtemp(prefix="ftagent-check-"))
    results: list[Result] = []

    async def session() -> None:
        for one in checks:
            result = await conformance.run_check(one, lambda: environment, folder / one.name)
            results.append(result)
            if not json_:
                shown = clean(result.reason or result.check.property)
                typer.echo(f"{MARKS[result.status]}  {one.name:24} {result.seconds:6.2f} s  {shown}")

    try:
        asyncio.run(session())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    failed = sum(result.status == "fail" for result in results)
    if json_:
        rows = [_row(result) for result in results]
        print_json({"environment": environment.name, "ok": not failed, "checks": rows})
    else:
        typer.echo(f"{len(results) - failed} of {len(results)} without failure; {environment.describe()}")
    return 1 if failed else 0


def _row(result: Result) -> dict[str, object]:
    check = result.check
    told = {"status": result.status, "reason": result.reason, "seconds": round(result.seconds, 3)}
    return {"name": check.name, "property": check.property, "rows": list(check.rows), **told}


def build(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="NAME", help="docker or conda.")],
    scenario: ScenarioOption = "llm",
    variant: Annotated[
        str,
        typer.Option("--variant", metavar="NAME", help="Of the image: cpu, cuda or vllm (default: by the GPUs here)."),
    ] = "",
    again: Annotated[bool, typer.Option("--again", help="Make an image that is there once more.")] = False,
) -> None:
    """Make the image or the environment that commands run in."""
    from ftagent.environments.choosing import conda_options, docker_options, stack_of
    from ftagent.environments.conda import CondaEnvironment
    from ftagent.environments.docker import DockerEnvironment

    settings, stack = common(ctx).settings(), stack_of(scenario)
    if kind == "docker":
        docker = DockerEnvironment(docker_options(settings, stack, variant))
        made, what = asyncio.run(docker.build(_progress, again)), f"image {docker.options.source.name}"
    elif kind == "conda":
        if variant or again:
            raise RequestError("--variant and --again are for docker; a conda environment follows its specification")
        conda = CondaEnvironment(conda_options(settings, stack))
        made, what = asyncio.run(conda.build(_progress)), f"environment {conda.prefix}"
    else:
        raise RequestError(f"env build {kind}: only docker and conda have something to be made")
    typer.echo(f"{what} {'is ready' if made else 'was there already'}")


def _progress(line: str) -> None:
    typer.echo(clean(line), err=True)
