"""What `ftagent run --dry-run` tells: what would happen, what it would need, what it would cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftagent import controls, parts

if TYPE_CHECKING:
    from ftagent.core.types import Brief
    from ftagent.forecast import Forecast
    from ftagent.parts import Parts
    from ftagent.request import RunRequest
    from ftagent.settings import Settings


@dataclass(frozen=True)
class Plan:
    """What `run --dry-run` prints: what would happen and what it would need."""

    document: dict[str, Any]
    lines: tuple[str, ...]


def plan(request: RunRequest, settings: Settings) -> Plan:
    """What `start` would do. Changes nothing. Raises RequestError as `start` would."""
    request = parts.merged(request, settings)
    notes: list[str] = []
    built = parts.build(request, settings, notes.append, plan=True)
    parts.check_cap(built, request.limits)
    controls.check(request, built)
    estimate, brief = built.scenario.estimate(), built.scenario.brief()
    parts.check_fit(estimate, request, built.hardware)
    asked, limits = _forecast(request, settings, built, brief), request.limits
    loops = "until another limit" if limits.loop_n is None else f"{limits.loop_n}"
    document = {
        "schema_version": 1,
        "request": asdict(request),
        "scenario_options": built.scenario_options,
        "agent": built.agent.name,
        "environment": {"name": built.environment.name, "sealed": built.environment.sealed},
        "hardware": asdict(built.hardware),
        "metric": brief.metric,
        "direction": brief.direction,
        "parameters": [parameter.name for parameter in brief.space],
        "estimate": asdict(estimate),
        "cost_usd": _most(asked),
        "language": asked.document() if asked else None,
    }
    lines = (
        f"goal         {brief.goal}",
        f"data         {brief.data}",
        f"agent        {built.agent.name}"
        + ("" if asked else f" over {len(brief.space)} parameters; no calls to a model, no dollars"),
        *(asked.lines() if asked else ()),
        f"environment  {built.environment.name} ({'sealed' if built.environment.sealed else 'not sealed'})",
        f"loops        {loops}, {request.parallel or 1} at once",
        *([f"controls     {' and '.join(controls.SAMPLERS)}, as many loops each"] if request.controls else []),
        f"needs        about {estimate.seconds_per_loop:.0f} s per loop, {estimate.memory_mb:.0f} MiB of memory, "
        f"{estimate.disk_mb:.0f} MiB of disk",
        f"machine      {built.hardware.describe()}",
        *estimate.notes,
        *built.notes,
        *notes,
    )
    return Plan(document, lines)


def _most(asked: Forecast | None) -> float | None:
    """Dollars; None where unknown."""
    if asked is None:
        return 0.0
    return None if asked.usd is None else asked.usd.high


def _forecast(request: RunRequest, settings: Settings, built: Parts, brief: Brief) -> Forecast | None:
    """Calls, tokens and dollars; None for an agent that asks no model."""
    from ftagent.agents.hybrid import HybridAgent
    from ftagent.agents.llm import LlmAgent
    from ftagent.agents.tuning.adviser import LlmUnivariateAgent
    from ftagent.forecast import Plan as Asked
    from ftagent.forecast import forecast, past_loops

    if built.language is None or not isinstance(built.agent, LlmAgent | LlmUnivariateAgent | HybridAgent):
        return None
    sizes, client = built.agent.prompt_tokens(brief), built.language.client
    models = {role: client.model(role).model for role in sizes}
    loops = request.limits.loop_n
    if loops is not None and isinstance(built.agent, HybridAgent):
        loops = built.agent.asking_loops(loops)
    asked = Asked(
        scenario=request.scenario,
        models=models,
        prices={model: client.price(model) for model in models.values()},
        prompt_tokens=sizes,
        repairs=settings.finetune.coder_max_loop,
        loops=loops,
        budget_usd=request.limits.budget_usd,
    )
    return forecast(asked, past_loops(Path(request.log_dir), asked))
