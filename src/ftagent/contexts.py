"""What the application tells a scenario about a run, its machine and the user's settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ftagent.core.context import Hardware, HubAccess, ScenarioContext, Timeouts
from ftagent.core.errors import RequestError

if TYPE_CHECKING:
    from ftagent.request import RunRequest
    from ftagent.settings import Settings


def hub_access(settings: Settings) -> HubAccess:
    """How models and datasets are fetched."""
    hub = settings.hub
    token = hub.hf_token.get_secret_value() if hub.hf_token else ""
    return HubAccess(token, hub.hf_endpoint or "", hub.hf_hub_offline, hub.data_mirror, hub.hf_home)


def gpus_of(request: RunRequest, machine: Hardware) -> tuple[str, ...]:
    """Ids of the devices that a run may use. Raises RequestError for one that is not there."""
    known = [gpu.id for gpu in machine.gpus]
    if request.gpus == ("auto",):
        return tuple(known)
    missing = [gpu for gpu in request.gpus if gpu not in known]
    if missing:
        raise RequestError(f"--gpus {','.join(request.gpus)}: this machine has {', '.join(known) or 'no GPU'}")
    return request.gpus


def files_of(settings: Settings) -> Path:
    """FT_FILE_PATH, absolute."""
    return Path(settings.finetune.file_path).absolute()


def context_of(request: RunRequest, settings: Settings, machine: Hardware, gpus: tuple[str, ...]) -> ScenarioContext:
    """The record that a scenario is built with."""
    tune = settings.finetune
    return ScenarioContext(
        files_path=files_of(settings),
        seed=request.seed,
        limit=request.limit,
        base_model=request.base_model or "",
        benchmark=request.benchmark or "",
        benchmark_description=request.benchmark_description or "",
        user_target=request.user_target or "",
        datasets=request.datasets,
        script=request.script or "",
        space=request.space or "",
        documents=request.documents,
        hub=hub_access(settings),
        hardware=machine,
        gpus=gpus,
        timeouts=Timeouts(
            data_processing=tune.data_processing_timeout,
            debug_data_processing=tune.debug_data_processing_timeout,
            micro_batch=tune.micro_batch_timeout,
            full=tune.full_timeout,
            benchmark=tune.benchmark_timeout,
        ),
        samples=request.samples or 1,
        pass_k=request.pass_k,
        upper_data_size=request.upper_data_size,
    )
