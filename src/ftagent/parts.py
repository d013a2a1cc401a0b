"""From a request and settings to the parts of a run: scenario, agent, environment, engine options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftagent import language, plugins
from ftagent.contexts import context_of, files_of, gpus_of
from ftagent.core import hardware
from ftagent.core.calls import Calls
from ftagent.core.context import Hardware
from ftagent.core.engine import EngineOptions
from ftagent.core.errors import RequestError
from ftagent.core.events import Limits
from ftagent.core.policy import PolicyOptions
from ftagent.core.types import Estimate
from ftagent.environments.brokered import BrokeredEnvironment

if TYPE_CHECKING:
    from ftagent.core.options import Gate
    from ftagent.core.protocols import Agent, Environment, Scenario
    from ftagent.core.run_folder import RunFolder
    from ftagent.core.types import Brief
    from ftagent.language import Language
    from ftagent.request import RunRequest
    from ftagent.settings import Settings


def _silent(text: str) -> None: ...


@dataclass(frozen=True)
class Parts:
    """Everything a run is put together from, and one line for each choice that was made for the user."""

    scenario: Scenario
    agent: Agent
    environment: Environment
    options: EngineOptions
    scenario_options: dict[str, Any]
    hardware: Hardware
    notes: tuple[str, ...]
    calls: Calls = field(default_factory=Calls)
    """What the run's language models said; opened with the run's session."""
    language: Language | None = None
    """The models themselves; None for an agent that asks none."""
    lessons: tuple[str, ...] = ()
    """Of earlier runs, as the agent is told them."""
    memory: Path | None = None
    """Where this run's lessons are kept for later ones."""

    async def close(self) -> None:
        """Let go of the environment and of connections to models."""
        await self.environment.close()
        if self.language is not None:
            await self.language.client.close()


def merged(request: RunRequest, settings: Settings) -> RunRequest:
    """`request` with what only settings say filled in."""
    tune = settings.finetune
    return replace(
        request,
        base_model=request.base_model or tune.base_model,
        benchmark=request.benchmark or tune.target_benchmark,
        benchmark_description=request.benchmark_description or tune.benchmark_description,
        user_target=request.user_target or tune.user_target_scenario,
        datasets=request.datasets or tuple(tune.dataset),
        documents=request.documents or plugins.read_documents(request),
        env=_env(request, settings),
        limit=request.limit if request.limit is not None else tune.benchmark_limit,
        samples=request.samples if request.samples is not None else tune.benchmark_num_runs,
        pass_k=request.pass_k or tuple(tune.benchmark_pass_k or ()),
        upper_data_size=request.upper_data_size or tune.upper_data_size_limit,
        parallel=request.parallel if request.parallel is not None else settings.loop.multi_proc_n,
        gpus=request.gpus or tuple(settings.device.cuda_visible_devices or ()),
        yes_run_unsandboxed=request.yes_run_unsandboxed or settings.environments.yes_run_unsandboxed,
    )


def build(
    request: RunRequest,
    settings: Settings,
    note: Callable[[str], None] = _silent,
    recorded: RunFolder | None = None,
    plan: bool = False,
) -> Parts:
    """The parts that `request`, already merged, asks for. Raises RequestError; downloads only what it needs.

    `recorded`: the folder of the run where there is one, whose lessons are used again. `plan`: nothing is asked of
    any model.
    """
    calls = Calls()
    talk = language.speak(settings, calls, note, files_of(settings)) if _asks(request, settings) else None
    return _assemble(request, settings, calls, talk, recorded, note, plan)


def rebuild(request: RunRequest, settings: Settings, note: Callable[[str], None], recorded: RunFolder) -> Parts:
    """The parts of a recorded run, whose models say again what they said. Raises RequestError."""
    calls = Calls(reuses=False)
    asked = recorded.read_record().get("agent") in language.SPEAKING
    talk = language.repeat(recorded, settings, calls, note) if asked else None
    # A replay executes again: what was kept would hide a difference.
    return _assemble(replace(request, no_cache=True), settings, calls, talk, recorded, note)


def _assemble(
    request: RunRequest,
    settings: Settings,
    calls: Calls,
    talk: Language | None,
    recorded: RunFolder | None,
    note: Callable[[str], None],
    plan: bool = False,
) -> Parts:
    machine = hardware.detect()
    options = plugins.parse_options(request.scenario, request.options)
    environment, notes = environment_of(request.env, settings, request.parallel or 1, request.scenario, note)
    environment = _cached(environment, request, settings)
    context = replace(context_of(request, settings, machine, gpus_of(request, machine)), llm=talk is not None)
    scenario_class: Any = plugins.load_scenario(request.scenario)
    scenario: Scenario = scenario_class(options, context)
    brief, name = scenario.brief(), "hybrid" if request.agent == "hybrid" else "llm"
    if talk is not None:
        if language.writes_code(name, brief):
            _check_boundary(request, environment)
        environment = BrokeredEnvironment(environment, talk.open_broker)
    lessons: tuple[str, ...] = ()
    if talk is not None and recorded is not None:
        lessons = tuple(recorded.read_record().get("lessons", ()))
    elif talk is not None:
        lessons = language.lessons_for(request, settings, brief, files_of(settings), note, embeds=not plan)
    agent = talk.agent(name, brief, lessons, settings) if talk else language.silent_agent(brief)
    if talk is not None and agent.name != name:
        notes = [*notes, f"all parameters at once are for a sampler: --agent {name} narrows the space (hybrid)"]
    return Parts(
        scenario=scenario,
        agent=agent,
        environment=environment,
        options=_engine_options(request, settings, brief),
        scenario_options=options.model_dump(mode="json"),
        hardware=machine,
        notes=tuple(notes),
        calls=calls,
        language=talk,
        lessons=lessons,
        memory=language.memory_of(settings, files_of(settings)),
    )


def gated(built: Parts, interactive: bool | None, gate: Gate | None, note: Callable[[str], None]) -> Parts:
    """`built`, asking `gate` between loops where that is wanted (None: as the plan says) and somebody is there."""
    if gate is None:
        if interactive:
            note("--interactive: no terminal to ask at, so nobody is asked")
        return built
    plan = built.scenario.brief().plan
    wanted = plan is not None and plan.interactive if interactive is None else interactive
    return replace(built, options=replace(built.options, gate=gate)) if wanted else built


def _asks(request: RunRequest, settings: Settings) -> bool:
    return language.agent_name(request, settings) in language.SPEAKING


def _check_boundary(request: RunRequest, environment: Environment) -> None:
    """Code that a model wrote runs unconfined only when the user says so. Raises RequestError."""
    if not environment.sealed and not request.yes_run_unsandboxed:
        raise RequestError(
            f"--env {request.env}: an LLM's code would run without a sandbox, with your rights, on this machine; "
            "install bubblewrap, or say --yes-run-unsandboxed"
        )


def _env(request: RunRequest, settings: Settings) -> str:
    """`--env` wins; a setting that names an environment still to come was warned about and means auto."""
    from ftagent.environments.registry import KINDS

    wished = settings.finetune.coder_costeer_env_type
    return request.env if request.env != "auto" or wished not in KINDS else wished


def check_fit(estimate: Estimate, request: RunRequest, machine: Hardware) -> None:
    """Refuse a run that cannot fit this machine or its own limits. Raises RequestError saying what would fit."""
    folder = Path(request.log_dir).absolute()
    free = hardware.free_disk_mb(folder)
    if free is not None and estimate.disk_mb > free:
        raise RequestError(
            f"{folder}: {free:.0f} MiB free, the run needs about {estimate.disk_mb:.0f} MiB; "
            "--log-dir on another disk, a smaller --base-model or LoRA instead of full training would fit"
        )
    memory = max([gpu.memory_mb for gpu in machine.gpus] + [machine.memory_mb])
    if memory and estimate.memory_mb > memory:
        raise RequestError(
            f"the run needs about {estimate.memory_mb:.0f} MiB of memory, this machine has {memory} MiB; "
            "a smaller --base-model, batch or sequence length would fit"
        )
    timeout = request.limits.timeout
    if timeout is not None and estimate.seconds_per_loop > timeout:
        raise RequestError(
            f"--timeout {timeout:.0f}s is over before one loop ends (about {estimate.seconds_per_loop:.0f} s); "
            "a longer --timeout, a lower --limit or fewer training tokens would fit"
        )


def check_cap(built: Parts, limits: Limits) -> None:
    """Refuse `--budget-usd` over a model whose price is unknown. Raises RequestError."""
    if built.language is not None and limits.budget_usd is not None:
        from ftagent.llm.models import check_prices

        check_prices(built.language.client)


def environment_of(
    kind: str,
    settings: Settings,
    parallel: int = 1,
    scenario: str = "llm",
    note: Callable[[str], None] = _silent,
) -> tuple[Environment, list[str]]:
    """The environment and lines for the banner: why it is this one, and whether it is no security boundary.

    Raises RequestError.
    """
    from ftagent.environments.choosing import choose
    from ftagent.environments.leased import LeasedEnvironment, default_folder

    choice = choose(kind, settings, scenario, note)
    inner = choice.environment
    environment = LeasedEnvironment(inner, default_folder(), parallel)
    return environment, [*choice.notes, *([] if inner.sealed else [inner.describe()])]


def _cached(environment: Environment, request: RunRequest, settings: Settings) -> Environment:
    from ftagent.environments.cached import CachedEnvironment, Identified
    from ftagent.environments.stage_cache import StageCache

    limit = int(settings.environments.stage_cache_gb * 1e9)
    if request.no_cache or not settings.finetune.docker_enable_cache or not limit:
        return environment
    cache = StageCache(files_of(settings) / "cache" / "stages", limit)
    return CachedEnvironment(environment, cache) if isinstance(environment, Identified) else environment


def _engine_options(request: RunRequest, settings: Settings, brief: Brief) -> EngineOptions:
    semaphore = settings.loop.step_semaphore
    if isinstance(semaphore, int):
        # Unset means as many as there are loops in flight: `--parallel 2` is meant to run two at once.
        unset = settings.origin("STEP_SEMAPHORE") == "default"
        limits = {} if unset else dict.fromkeys(("propose", "code", "run", "feedback"), semaphore)
    else:
        limits = dict(semaphore)
    return EngineOptions(
        parallel=request.parallel or 1,
        repairs=settings.finetune.coder_max_loop,
        keep=request.keep,
        step_limits=limits,
        policy=PolicyOptions(constraints=brief.plan.constraints if brief.plan else ()),
    )
