"""Images of environment `docker`: which one a run wants, and making it where it is not there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ftagent.core.errors import EnvironmentUnavailable, RequestError
from ftagent.environments.docker_config import Image
from ftagent.environments.docker_engine import Engine
from ftagent.environments.sandbox import package_folder

Stack = Literal["llm", "tabular"]
"""What an image has installed: for fine-tuning language models, or for tables."""
IGNORED = ("__pycache__", ".git")
HASH_LENGTH = 12
OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class ImageSource:
    """Where an image comes from: `context`, a folder with a Dockerfile, else the registry."""

    name: str
    context: Path | None = None
    target: str = ""
    """Of a Dockerfile with several."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """Of the build."""


def contexts_folder() -> Path:
    """The build contexts: in the package, or beside the sources of a checkout."""
    package = package_folder()
    packaged = package / "environments" / "images"
    return packaged if packaged.is_dir() else package.parent.parent / "docker"


def image_source(
    stack: Stack, image: str = "", folder: Path | None = None, variant: str = "", base: str = ""
) -> ImageSource:
    """The image for `stack`: one that the user names, else from the user's Dockerfile in `folder`, else ours.

    `variant` is a target of the Dockerfile, `base` replaces the image that it starts from. Raises RequestError.
    """
    if image:
        return ImageSource(image)
    context = folder or contexts_folder() / stack
    if not (context / "Dockerfile").is_file():
        raise RequestError(f"{context}: no Dockerfile here to build an image from")
    arguments = {"BASE": base} if base else {}
    return ImageSource(f"ftagent-{stack}:{digest(context, variant, arguments)}", context, variant, arguments)


def digest(context: Path, target: str = "", arguments: Mapping[str, str] | None = None) -> str:
    """Of everything that decides what is built: names, contents and executable bits, target and arguments."""
    total = hashlib.sha256()
    parts = [target, *(f"{name}={value}" for name, value in sorted((arguments or {}).items()))]
    for path in context_files(context):
        inside = path.relative_to(context).as_posix()
        if path.is_symlink():
            parts += [inside, "link", os.readlink(path)]  # noqa: PTH115 - the text as it stands
        else:
            executable = "x" if os.access(path, os.X_OK) else "-"
            parts += [inside, executable, hashlib.sha256(path.read_bytes()).hexdigest()]
    for part in parts:
        total.update(os.fsencode(part) + b"\0")
    return total.hexdigest()[:HASH_LENGTH]


def context_files(context: Path) -> list[Path]:
    """Files and links of a build context, in order."""
    found = []
    for folder, below, names in os.walk(context):
        below[:] = sorted(name for name in below if name not in IGNORED)
        links = [name for name in below if Path(folder, name).is_symlink()]
        found += [Path(folder, name) for name in [*names, *links]]
    return sorted(found)


def make(engine: Engine, source: ImageSource, progress: OnProgress, *, may_make: bool, again: bool = False) -> Image:
    """The image of `source`, built or pulled where it is not there and that is allowed; `again`: in any case.

    Raises EnvironmentUnavailable with the last lines of what failed.
    """
    found = None if again else engine.image(source.name)
    if found is not None:
        return found
    if not may_make:
        raise EnvironmentUnavailable(f"image {source.name} is not there", "`ftagent env build docker` makes it")
    if source.context is None:
        progress(f"pulling image {source.name}")
        _follow(engine.pull(source.name), progress, f"image {source.name} cannot be pulled")
    else:
        progress(f"building image {source.name} from {source.context}")
        arguments = dict(source.arguments)
        steps = engine.build(str(source.context), source.name, source.target, arguments)
        _follow(steps, progress, f"image {source.name} cannot be built from {source.context}")
    made = engine.image(source.name)
    if made is None:
        raise EnvironmentUnavailable(f"image {source.name} was made and is not there")
    progress(f"image {source.name} is ready")
    return made


def _follow(steps: Iterable[dict[str, Any]], progress: OnProgress, failed: str) -> None:
    """Tell what the engine does, each layer's progress once a state. Raises EnvironmentUnavailable."""
    states: dict[str, str] = {}
    last: list[str] = []
    for step in steps:
        if "error" in step:
            shown = " | ".join(last[-3:])
            raise EnvironmentUnavailable(
                f"{failed}: {' '.join(str(step['error']).split())}" + (f" ({shown})" if shown else "")
            )
        layer, state = str(step.get("id", "")), str(step.get("status", ""))
        if state and states.get(layer) != state:
            states[layer] = state
            progress(f"{layer}: {state}" if layer else state)
        for line in str(step.get("stream", "")).splitlines():
            if line.strip():
                last = [*last[-2:], line.strip()]
                progress(line.rstrip())
