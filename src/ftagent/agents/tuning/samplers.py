"""Who picks the numbers of the joint mode: our own sampler, CMA-ES or one of Optuna's, rebuilt from the trace."""

from __future__ import annotations

import importlib.util
import itertools
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ftagent.agents.tuning import evolution
from ftagent.agents.tuning.trials import Known
from ftagent.core.errors import RequestError
from ftagent.core.search_plan import SearchPlan
from ftagent.core.types import Direction, Parameter
from ftagent.search import Trial, joint, pareto
from ftagent.search.coordinates import Axis

if TYPE_CHECKING:
    import optuna

SAMPLERS = ("auto", "tpe", "gp", "cmaes", "random")
_NEEDED = {"gp": ("scipy", "torch"), "cmaes": ("cmaes",)}
_STARTUP = 5
"""Trials before TPE and GP have a model; Optuna's ten are half of a usual run."""
_TRIES = 20
_MOST_LISTED = 2000
"""Configurations of a space that is looked through for those that are left."""


def check_sampler(plan: SearchPlan) -> None:
    """Raises RequestError for a sampler that does not exist, is not installed, or cannot do what the plan asks."""
    name = plan.sampler
    if name not in SAMPLERS:
        raise RequestError(f"sampler {name!r}: no such sampler; valid: {', '.join(SAMPLERS)}")
    if missing := [module for module in _NEEDED.get(name, ()) if importlib.util.find_spec(module) is None]:
        raise RequestError(f"sampler {name}: needs {', '.join(missing)}; `pip install 'ftagent[hpo]'` brings it")
    if name == "cmaes" and plan.objectives:
        raise RequestError("sampler cmaes: knows one objective only; valid for several: auto, tpe, gp, random")


def sample(
    space: Sequence[Parameter], plan: SearchPlan, direction: Direction, known: Sequence[Known], seed: int
) -> dict[str, Any] | None:
    """The next configuration of the tunable parameters; None where all that there are were tried.

    `known[0]` is the default configuration, or whatever else a search of `space` starts from.
    """
    tried = [_own_values(space, one.trial.params) for one in known]
    if plan.sampler == "auto":
        params = _own(space, plan, direction, known, seed)
        return params if params not in tried else _untried(space, tried, params, f"{seed}/{len(known)}")
    for attempt in range(_TRIES):
        turn = f"{seed}/{len(known)}/{attempt}"
        if plan.sampler == "cmaes":
            params = evolution.suggest(space, direction, known, turn)
        else:
            params = optuna_point(space, plan, direction, known, turn)
        if params not in tried:
            return params
    return _untried(space, tried, params, turn)


def _untried(
    space: Sequence[Parameter], tried: Sequence[dict[str, Any]], repeated: dict[str, Any], seed: str
) -> dict[str, Any] | None:
    """Any of the configurations that are left of a small space, None where none is; `repeated` of a large one."""
    if math.prod(Axis(parameter).size for parameter in space) > _MOST_LISTED:
        return repeated
    values = [_values(parameter) for parameter in space]
    names = [parameter.name for parameter in space]
    left = [made for one in itertools.product(*values) if (made := dict(zip(names, one, strict=True))) not in tried]
    return random.Random(seed).choice(left) if left else None


def _values(parameter: Parameter) -> Sequence[Any]:
    """All of a parameter that has few; a float that has one."""
    if parameter.kind == "choice":
        return parameter.choices
    low, high = parameter.low or 0.0, parameter.high or 0.0
    return range(math.ceil(low), math.floor(high) + 1) if parameter.kind == "int" else [low]


def _own(
    space: Sequence[Parameter], plan: SearchPlan, direction: Direction, known: Sequence[Known], seed: int
) -> dict[str, Any]:
    trials = [one.trial for one in known if one.state != "running"] or [Trial(known[0].trial.params, None)]
    pending = [one.trial.params for one in known if one.state == "running"]
    if plan.objectives:
        trials = _scalarised(plan, direction, [one for one in known if one.state != "running"], seed + len(known))
        direction = "maximize"
    names = {parameter.name for parameter in space}
    found = joint.suggest(space, direction, trials, seed, pending)
    return {name: value for name, value in found.items() if name in names}


def _scalarised(plan: SearchPlan, direction: Direction, known: Sequence[Known], seed: int) -> list[Trial]:
    """The trials with one number for all objectives; another weighting for each seed, to cover the whole front."""
    measured = [one for one in known if one.objectives]
    directions: list[Direction] = [direction, *(objective.direction for objective in plan.objectives)]
    values = iter(pareto.scalarise([one.objectives for one in measured], directions, seed))
    return [
        Trial(
            one.trial.params, next(values) if one.objectives else None, stopped=one.trial.stopped,
            violation=one.trial.violation,
        )
        for one in known
    ]  # fmt: skip


def optuna_point(
    space: Sequence[Parameter], plan: SearchPlan, direction: Direction, known: Sequence[Known], seed: str
) -> dict[str, Any]:
    """What the plan's sampler of Optuna asks for next, given the trials; `seed` is any text."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {parameter.name: distribution(parameter) for parameter in space}
    with warnings.catch_warnings():
        # Samplers say that they are experimental, and that a value that is given replaces theirs.
        warnings.simplefilter("ignore")
        directions = [direction, *(objective.direction for objective in plan.objectives)]
        study = optuna.create_study(directions=directions, sampler=_sampler(plan, seed))
        for one in known:
            params = _own_values(space, one.trial.params)
            if one.state == "running":
                study.enqueue_trial(params)
                study.ask(distributions)
            else:
                study.add_trial(_frozen(one, params, distributions, plan))
        found = study.ask(distributions).params
    return {name: plain(value) for name, value in found.items()}


def _sampler(plan: SearchPlan, seed: str) -> optuna.samplers.BaseSampler:
    import optuna

    number = random.Random(seed).getrandbits(32)
    match plan.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(
                seed=number, multivariate=True, constant_liar=True, n_startup_trials=_STARTUP
            )
        case "gp":
            return optuna.samplers.GPSampler(seed=number, n_startup_trials=_STARTUP)
        case _:
            return optuna.samplers.RandomSampler(seed=number)


def _frozen(
    one: Known, params: dict[str, Any], distributions: Mapping[str, optuna.distributions.BaseDistribution],
    plan: SearchPlan,
) -> optuna.trial.FrozenTrial:  # fmt: skip
    import optuna

    several = bool(plan.objectives)
    if one.state == "finished" and one.objectives:
        state, values = optuna.trial.TrialState.COMPLETE, list(one.objectives)
    else:
        # A study of several objectives knows no pruned trials.
        pruned = one.state == "stopped" and one.trial.curve and not several
        state, values = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.FAIL, None
    return optuna.trial.create_trial(
        params=params, distributions=dict(distributions), values=values, state=state,
        intermediate_values=None if several else dict(one.trial.curve),
        constraints={"violation": one.trial.violation} if plan.constraints and values else None,
    )  # fmt: skip


def distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    """Raises ValueError for a number without a range."""
    import optuna

    if parameter.kind == "choice":
        return optuna.distributions.CategoricalDistribution(parameter.choices)
    if parameter.low is None or parameter.high is None:
        raise ValueError(f"{parameter.name}: a {parameter.kind} needs low and high")
    if parameter.kind == "int":
        return optuna.distributions.IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return optuna.distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def plain(value: Any) -> Any:
    """Four significant digits are plenty, and survive JSON unchanged."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _own_values(space: Sequence[Parameter], params: Mapping[str, Any]) -> dict[str, Any]:
    return {p.name: cast(Any, params.get(p.name, p.default)) for p in space}
