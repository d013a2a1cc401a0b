"""The strategies that are compared: Optuna's, simple ones, and ours."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replay import Arm, Curve, Search
from tables import Table

from ftagent.core.types import Direction, Parameter
from ftagent.search import Trial

if TYPE_CHECKING:
    import optuna

_GOLDEN = (math.sqrt(5) - 1) / 2
_REDUCTION = 3.0
_RUNGS = 2
_ROUNDS = 3
_TRIES = 100


class Missing(Exception):
    """An arm that cannot run here; the text says why."""


def best_seen(trials: Sequence[Trial], direction: Direction) -> int:
    """Index of the best finished trial; the default where none is finished."""
    sign = 1.0 if direction == "maximize" else -1.0
    finished = [index for index, trial in enumerate(trials) if trial.value is not None]
    return max(finished, key=lambda index: sign * (trials[index].value or 0.0), default=0)


class Plain:
    """Finishes every trial and recommends the best that it saw."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def stops(self, trials: Sequence[Trial], curve: Curve) -> bool:
        return False

    def recommend(self, trials: Sequence[Trial]) -> int:
        return best_seen(trials, self._table.direction)


@dataclass(frozen=True)
class OptunaArm:
    """A sampler and a pruner of Optuna; `sampler` takes the seed."""

    name: str
    sampler: Callable[[int], optuna.samplers.BaseSampler]
    pruner: Callable[[], optuna.pruners.BasePruner] | None = None
    distinct: bool = False
    """Ask again, at no cost, where a proposal is a cell that was tried."""

    def start(self, table: Table, seed: int) -> Search:
        return _OptunaSearch(table, self, seed)


class _OptunaSearch(Plain):
    def __init__(self, table: Table, arm: OptunaArm, seed: int) -> None:
        import optuna

        super().__init__(table)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = arm.sampler(seed)
            pruner = arm.pruner() if arm.pruner else optuna.pruners.NopPruner()
        self._study = optuna.create_study(direction=table.direction, sampler=sampler, pruner=pruner)
        self._distributions = {parameter.name: distribution(parameter) for parameter in table.space}
        self._distinct = arm.distinct
        self._study.enqueue_trial(table.spec.default)
        self._running = self._study.ask(self._distributions)

    def suggest(self, trials: Sequence[Trial]) -> Mapping[str, Any]:
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._tell(trials[-1])
            tried = {self._table.snap(trial.params) for trial in trials} if self._distinct else set()
            for _ in range(_TRIES):
                self._running = self._study.ask(self._distributions)
                if self._table.snap(self._running.params) not in tried:
                    break
                self._study.tell(self._running, state=optuna.trial.TrialState.FAIL)
            else:
                self._running = self._study.ask(self._distributions)
        return self._running.params

    def stops(self, trials: Sequence[Trial], curve: Curve) -> bool:
        # By number of the evaluation, as scripts report epochs: successive halving would read percents as many rungs.
        self._running.report(curve[-1][1], len(curve))
        return self._running.should_prune()

    def _tell(self, trial: Trial) -> None:
        """Of the cell that was measured, not of the place that was proposed: arms know where their values belong."""
        import optuna

        for name, value in trial.params.items():
            known = self._distributions[name]
            self._study._storage.set_trial_param(self._running._trial_id, name, known.to_internal_repr(value), known)
        states = optuna.trial.TrialState
        state = states.PRUNED if trial.stopped else states.FAIL if trial.value is None else states.COMPLETE
        self._study.tell(self._running, trial.value if state is states.COMPLETE else None, state=state)


def distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    import optuna

    if parameter.kind == "choice":
        return optuna.distributions.CategoricalDistribution(parameter.choices)
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.kind == "int":
        return optuna.distributions.IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return optuna.distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.log)


@dataclass(frozen=True)
class WalkArm:
    """A deterministic order of proposals, written as a generator that is sent the value of each."""

    name: str
    walk: Callable[[Table], Iterator[Mapping[str, Any]]]

    def start(self, table: Table, seed: int) -> Search:
        return _WalkSearch(table, self.walk(table))


class _WalkSearch(Plain):
    def __init__(self, table: Table, walk: Any) -> None:
        super().__init__(table)
        self._walk = walk
        next(walk)

    def suggest(self, trials: Sequence[Trial]) -> Mapping[str, Any]:
        value = trials[-1].value
        signed = math.inf if value is None else -value if self._table.direction == "maximize" else value
        proposal: Mapping[str, Any] = self._walk.send(signed)
        return proposal


def univariate_grid(table: Table) -> Any:
    """All grid values of one parameter, the best is fixed, then the next parameter; again from the first in the end.

    Yields parameters, is sent the loss of the yielded ones (of the default at first).
    """
    base = dict(table.spec.default)
    least: float = yield base
    while True:
        for parameter, values in zip(table.space, table.grid, strict=True):
            start = base
            for value in values:
                if value == start[parameter.name]:
                    continue
                candidate = {**start, parameter.name: value}
                loss = yield candidate
                if loss < least:
                    base, least = candidate, loss


def golden_section(table: Table) -> Any:
    """Of the learning rate, in logarithms; the others keep their defaults. In the end it repeats the best."""
    parameter = next(p for p in table.space if p.name == "learning_rate")
    assert parameter.low is not None
    assert parameter.high is not None
    default = table.spec.default
    yield default
    low, high = math.log(parameter.low), math.log(parameter.high)

    def at(place: float) -> Mapping[str, Any]:
        return {**default, parameter.name: math.exp(place)}

    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    left_loss = yield at(left)
    right_loss = yield at(right)
    while high - low > 1e-3:
        if left_loss <= right_loss:
            high, right, right_loss = right, left, left_loss
            left = high - _GOLDEN * (high - low)
            left_loss = yield at(left)
        else:
            low, left, left_loss = left, right, right_loss
            right = low + _GOLDEN * (high - low)
            right_loss = yield at(right)
    while True:
        yield at((low + high) / 2)


@dataclass(frozen=True)
class JointArm:
    """`ftagent.search.joint`, with early stopping or without."""

    name: str
    early: bool = False

    def start(self, table: Table, seed: int) -> Search:
        try:
            from ftagent.search import joint  # noqa: F401
        except ImportError:
            raise Missing("ftagent.search has no joint") from None
        return _JointSearch(table, seed, self.early)


class _JointSearch:
    def __init__(self, table: Table, seed: int, early: bool) -> None:
        self._table, self._seed, self._early = table, seed, early

    def suggest(self, trials: Sequence[Trial]) -> Mapping[str, Any]:
        from ftagent.search import joint

        proposal: Mapping[str, Any] = joint.suggest(self._table.space, self._table.direction, trials, self._seed)
        return proposal

    def stops(self, trials: Sequence[Trial], curve: Curve) -> bool:
        if not self._early or not trials:
            return False
        from ftagent.search import halving

        step, value = curve[-1]
        sign = 1.0 if self._table.direction == "maximize" else -1.0
        rungs = halving.stopping(trials, self._table.direction, _REDUCTION, _RUNGS)
        return any(_first_after(curve, rung.step) == step and sign * value < sign * rung.needs for rung in rungs)

    def recommend(self, trials: Sequence[Trial]) -> int:
        from ftagent.search import joint

        index: int = joint.recommend(self._table.space, self._table.direction, trials)
        return index


def _first_after(curve: Curve, step: int) -> int | None:
    return next((place for place, _ in curve if place >= step), None)


@dataclass(frozen=True)
class UnivariateArm:
    """`ftagent.search.univariate`: all parameters by priority, three rounds each; then again from the best."""

    name: str

    def start(self, table: Table, seed: int) -> Search:
        try:
            from ftagent.search import univariate  # noqa: F401
        except ImportError:
            raise Missing("ftagent.search has no univariate") from None
        return _UnivariateSearch(table, seed)


class _UnivariateSearch(Plain):
    def __init__(self, table: Table, seed: int) -> None:
        from ftagent.search import univariate

        super().__init__(table)
        self._seed = seed
        self._keys = univariate.priorities(table.space, len(table.space))
        self._begun = 0
        """Where this pass over the keys began."""

    def suggest(self, trials: Sequence[Trial]) -> Mapping[str, Any]:
        from ftagent.search import univariate

        space, direction = self._table.space, self._table.direction
        while True:
            base = trials[best_seen(trials[: self._begun + 1], direction)]
            state = univariate.state(space, direction, [base, *trials[self._begun + 1 :]], self._keys, _ROUNDS)
            if state is not None:
                break
            self._begun = len(trials) - 1
        value = univariate.suggest(
            space, direction, trials, state.key, state.tried_values, state.rounds_left, self._seed
        )
        return {**state.base, state.key: value}


def _optuna_arms() -> Iterator[OptunaArm]:
    def samplers() -> Any:
        import optuna

        return optuna.samplers

    def pruners() -> Any:
        import optuna

        return optuna.pruners

    yield OptunaArm("random", lambda seed: samplers().RandomSampler(seed=seed))
    yield OptunaArm("optuna-tpe", lambda seed: samplers().TPESampler(seed=seed))
    yield OptunaArm("optuna-tpe-distinct", lambda seed: samplers().TPESampler(seed=seed), distinct=True)
    yield OptunaArm("optuna-gp", lambda seed: samplers().GPSampler(seed=seed))
    yield OptunaArm("optuna-cmaes", lambda seed: samplers().CmaEsSampler(seed=seed, warn_independent_sampling=False))
    yield OptunaArm(
        "optuna-tpe-median", lambda seed: samplers().TPESampler(seed=seed), lambda: pruners().MedianPruner()
    )
    yield OptunaArm(
        "optuna-tpe-halving", lambda seed: samplers().TPESampler(seed=seed), lambda: pruners().SuccessiveHalvingPruner()
    )


def arms() -> dict[str, Arm]:
    """By name, ours first."""
    every: list[Arm] = [
        JointArm("ours-joint"),
        JointArm("ours-joint-early-stop", early=True),
        UnivariateArm("ours-univariate"),
        *_optuna_arms(),
        WalkArm("univariate-grid", univariate_grid),
        WalkArm("golden-section", golden_section),
    ]
    return {arm.name: arm for arm in every}
