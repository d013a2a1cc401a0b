"""Which environment a run gets: by what was asked, by the settings, and by what this machine has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ftagent.core.errors import EnvironmentUnavailable, RequestError
from ftagent.environments import registry
from ftagent.environments.conda import CondaEnvironment, CondaOptions
from ftagent.environments.docker import DockerEnvironment, DockerOptions
from ftagent.environments.docker_image import Stack, image_source
from ftagent.environments.local import LocalEnvironment

if TYPE_CHECKING:
    from ftagent.settings import Settings

OF_TABLES = ("tabular", "hpo")
"""Scenarios that work with tables; all others with language models."""
Note = Callable[[str], None]


def stack_of(scenario: str) -> Stack:
    """What the commands of `scenario` need to be installed."""
    return "tabular" if scenario in OF_TABLES else "llm"


def docker_options(settings: Settings, stack: Stack, variant: str = "") -> DockerOptions:
    """What the settings say of containers for `stack`. Raises RequestError for a folder without Dockerfile."""
    tables = settings.tabular
    image, folder = settings.finetune.docker_image or "", None
    if stack == "tabular":
        # The image that competitions are known to use is a download of 20 GB: taken when somebody names it.
        image = tables.docker_image if settings.origin("DS_DOCKER_IMAGE") != "default" else ""
        folder = tables.dockerfile_folder_path
        image = "" if folder else image
    source = image_source(stack, image, folder, variant)
    return DockerOptions(source, packages=_packages(settings))


def conda_options(settings: Settings, stack: Stack) -> CondaOptions:
    """What the settings say of conda environments for `stack`."""
    return CondaOptions(
        purpose=stack,
        environment=settings.environments.conda_env or "",
        folder=Path(settings.finetune.file_path).absolute() / "conda",
        packages=_packages(settings),
    )


@dataclass(frozen=True)
class Choice:
    """An environment, and what a user should be told about why it is this one."""

    environment: registry.Described
    notes: tuple[str, ...] = ()


def choose(kind: str, settings: Settings, scenario: str, progress: Note) -> Choice:
    """The environment `kind` for `scenario`; `progress` hears what it has to make before its first command.

    `auto` is docker where an engine answers and has the image, else local: it makes nothing and downloads nothing.
    Raises RequestError.
    """
    stack = stack_of(scenario)
    if kind == "auto":
        return _best(docker_options(settings, stack), progress)
    if kind == "docker":
        docker = DockerEnvironment(replace(docker_options(settings, stack), make_image=True), progress)
        if why := docker.why_unreachable():
            raise RequestError(f"--env docker: {why}")
        return Choice(docker)
    conda = conda_options(settings, stack) if kind == "conda" else None
    return Choice(registry.create(kind, conda=conda, on_line=progress))


def _best(options: DockerOptions, progress: Note) -> Choice:
    docker = DockerEnvironment(options, progress)
    if docker.why_unreachable():
        return Choice(LocalEnvironment())
    try:
        if docker.ready():
            return Choice(docker)
    except EnvironmentUnavailable:
        return Choice(LocalEnvironment())
    missing = (
        f"a Docker Engine answers and has no image {options.source.name}: commands run in `local`; "
        "`ftagent env build docker` makes the image"
    )
    return Choice(LocalEnvironment(), (missing,))


def _packages(settings: Settings) -> tuple[Path, ...]:
    return tuple(path.absolute() for path in settings.environments.packages)


@dataclass(frozen=True)
class Place:
    """One environment as `ftagent env list` shows it. `hint` says what would help."""

    name: str
    state: Literal["ready", "not ready", "not available"]
    detail: str
    hint: str = ""


def places(settings: Settings, stack: Stack) -> list[Place]:
    """What there is on this machine for `stack`, and what is missing. Makes nothing."""
    local = LocalEnvironment()
    hint = "" if local.sealed else "install bubblewrap"
    return [
        Place("local", "ready", local.describe().removeprefix("local: "), hint),
        _docker_place(settings, stack),
        conda_place(settings, stack),
        *(Place(name, "not available", "this version does not have it yet") for name in registry.PLANNED),
    ]


def _docker_place(settings: Settings, stack: Stack) -> Place:
    try:
        docker = DockerEnvironment(docker_options(settings, stack))
        if why := docker.why_unreachable():
            return Place("docker", "not available", why)
        ready, engine = docker.ready(), docker.version()
    except (RequestError, EnvironmentUnavailable) as error:
        return Place("docker", "not available", str(error))
    where = f"Engine {engine} at {docker.address}; image {docker.options.source.name}"
    if ready:
        return Place("docker", "ready", f"{where} is there")
    return Place("docker", "not ready", f"{where} is not there", "`ftagent env build docker` makes it")


def conda_place(settings: Settings, stack: Stack) -> Place:
    """Whether conda is there, and its environment for `stack`."""
    try:
        conda = CondaEnvironment(conda_options(settings, stack))
    except (RequestError, EnvironmentUnavailable) as error:
        return Place("conda", "not available", str(error).removeprefix("--env conda: "))
    if conda.ready():
        return Place("conda", "ready", f"environment {conda.prefix}")
    return Place("conda", "not ready", f"{conda.prefix} is not made", "`ftagent env build conda` makes it")
