"""`ftagent doctor`."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftagent.cli.common import JsonOption, common, print_json
from ftagent.core.errors import FtagentError
from ftagent.report.text import clean, size

if TYPE_CHECKING:
    from ftagent.settings import Settings

_PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "optuna", "reasoning-gym", "math-verify", "litellm")
_LOW_MEMORY = 4 * 2**30


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `hint` says what would help."""

    name: str
    ok: bool
    detail: str
    hint: str = ""
    seconds: float | None = None
    """How long a model took to answer."""
    price_known: bool | None = None
    """Of a model; None of anything else."""

    def document(self) -> dict[str, Any]:
        """As JSON, without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def doctor(
    ctx: typer.Context,
    fix: Annotated[bool, typer.Option("--fix", help="Make missing folders, remove containers of dead runs.")] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="Also compute something on the GPU; fails without one.")] = False,
    no_models: Annotated[bool, typer.Option("--no-models", help="Make no call to a language model.")] = False,
    json_: JsonOption = False,
) -> int:
    """Check this machine: environments, disk, memory, versions, plug-ins, models.

    Each language model that is set up gets one tiny call. Exit code 1 where something is wrong.
    """
    from ftagent.environments.registry import checks

    folder = common(ctx).log_folder(None)
    findings = [_python(), *_packages(), _memory()]
    findings += [Finding(check.name, check.ok, check.detail, check.hint) for check in checks(folder.absolute())]
    try:
        settings = common(ctx).settings()
    except FtagentError as error:
        findings += [Finding("settings", False, str(error)), *_plugins()]
    else:
        findings += [*_folders(settings, fix), *_plugins(), *_docker(settings, fix), _conda(settings)]
        findings += _models(settings, no_models)
    if gpu:
        findings.append(_compute())
    sound = all(finding.ok for finding in findings)
    if json_:
        print_json({"ok": sound, "checks": [finding.document() for finding in findings]})
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {clean(finding.detail)}")
            if finding.hint and not finding.ok:
                typer.echo(f"      {finding.hint}")
    return 0 if sound else 1


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", sys.version_info >= (3, 11), version, "ftagent needs Python 3.11 or later")


def _packages() -> list[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    findings = []
    for name in _PACKAGES:
        try:
            findings.append(Finding(name, True, version(name)))
        except PackageNotFoundError:
            findings.append(Finding(name, False, "not installed", f"pip install {name}"))
    return findings


def _memory() -> Finding:
    from ftagent.core.hardware import available_memory_mb, total_memory_mb

    free = available_memory_mb() * 2**20
    if not free:
        return Finding("memory", True, "unknown on this system")
    detail = f"{size(free)} free of {size(total_memory_mb() * 2**20)}"
    return Finding("memory", free >= _LOW_MEMORY, detail, "a small model needs about 4 GiB to train on the CPU")


def _folders(settings: Settings, fix: bool) -> list[Finding]:
    findings = [Finding("settings", True, str(settings.env_file or "no .env file"))]
    places = {"FT_FILE_PATH": settings.finetune.file_path, "FT_LOG_PATH": settings.finetune.log_path}
    findings += [_folder(name, path, fix) for name, path in places.items()]
    if mirror := settings.hub.data_mirror:
        there = (mirror / "mirror.json").is_file()
        findings.append(Finding("FTAGENT_DATA_MIRROR", there, str(mirror), "the folder needs a mirror.json"))
    return findings


def _folder(name: str, path: Path, fix: bool) -> Finding:
    if path.is_dir():
        return Finding(name, True, str(path))
    if not fix:
        if path.exists():
            return Finding(name, False, f"{path} is no folder", f"set {name} to a folder")
        return Finding(name, True, f"{path} is made when it is needed")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Finding(name, False, f"{path}: {error.strerror}", f"set {name} to a folder that can be written")
    return Finding(name, True, f"{path} made")


def _plugins() -> list[Finding]:
    from ftagent.cli.catalogues import scenarios

    return [
        Finding(f"scenario {entry.name}", not entry.problem, entry.problem or entry.target, f"see {entry.package}")
        for entry in scenarios(load=True)
    ]


def _docker(settings: Settings, fix: bool) -> list[Finding]:
    """The engine, its image, and containers of ours whose run is dead; nobody else's are touched."""
    from ftagent.environments.choosing import docker_options
    from ftagent.environments.docker import DockerEnvironment

    wanted = settings.finetune.coder_costeer_env_type == "docker"
    try:
        docker = DockerEnvironment(docker_options(settings, "llm"))
        if why := docker.why_unreachable():
            return [Finding("docker", not wanted, why, "set FT_CODER_COSTEER_ENV_TYPE to another environment")]
        image, there = docker.options.source.name, docker.ready()
        engine = f"Engine {docker.version()} at {docker.address}; image {image} is {'there' if there else 'not there'}"
        left, removed = docker.leftovers(remove=fix)
    except FtagentError as error:
        return [Finding("docker", not wanted, str(error))]
    findings = [Finding("docker", there or not wanted, engine, "`ftagent env build docker` makes it")]
    if removed:
        findings.append(Finding("containers of dead runs", True, f"removed: {', '.join(removed)}"))
    if left:
        names = ", ".join(left)
        findings.append(Finding("containers of dead runs", False, names, "`ftagent doctor --fix` removes them"))
    return findings


def _conda(settings: Settings) -> Finding:
    from ftagent.environments.choosing import conda_place

    wanted = settings.finetune.coder_costeer_env_type == "conda"
    place = conda_place(settings, "llm")
    return Finding("conda", place.state == "ready" or not wanted, place.detail, place.hint)


def _models(settings: Settings, skip: bool) -> list[Finding]:
    """A finding for each model: whether it answers, how fast, whether its price is known."""
    if not settings.chat.chat_model:
        return [Finding("chat model", True, "CHAT_MODEL is not set: agent search is used (`ftagent init` sets one up)")]
    if skip:
        return [Finding("chat model", True, f"{settings.chat.chat_model}, not asked")]
    from ftagent.probing import probe

    hint = "`ftagent init` changes the model and its key"
    return [
        Finding(
            f"model {found.model}", found.ok, found.detail(), "" if found.ok else hint,
            round(found.seconds, 3), found.price is not None,
        )
        for found in probe(settings)
    ]  # fmt: skip


def _compute() -> Finding:
    import torch

    if not torch.cuda.is_available():
        hint = "install a CUDA build of torch and the driver, or leave --gpu out"
        return Finding("GPU computation", False, "torch sees no GPU", hint)
    device = torch.device("cuda")
    done = (torch.ones(256, 256, device=device) @ torch.ones(256, 256, device=device)).sum().item()
    right = done == 256.0**3
    return Finding("GPU computation", right, torch.cuda.get_device_name(device), "the result of a product is wrong")
