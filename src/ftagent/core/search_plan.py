"""How the parameters of a scenario are to be tuned: what a scenario asks of an agent that tunes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["univariate", "joint"]


@dataclass(frozen=True)
class Objective:
    """A second thing to be good at, by its name in `Score.details` (or `seconds`, `peak_mb` of the full stages)."""

    name: str
    direction: Literal["maximize", "minimize"] = "minimize"


@dataclass(frozen=True)
class Constraint:
    """What no recommended configuration may exceed, by its name in `Score.details` (or `seconds`, `peak_mb`)."""

    name: str
    at_most: float


@dataclass(frozen=True)
class Halving:
    """Successive halving on live metrics (Jamieson and Talwalkar 2016; asynchronous as in Li et al. 2020).

    A trial is stopped at a rung where its metric is not among the best 1/`reduction` seen there, and it is farther
    behind the best trial than one that still overtook another ever was (ftagent.search.halving).
    """

    metric: str
    """Its key in the rows of metrics.jsonl, which have `step`; with a minus before it, its negative: as the metric is,
    so is this to be maximised or minimised."""
    reduction: float = 2.0
    rungs: int = 3


@dataclass(frozen=True)
class SearchPlan:
    """Of a run whose loops are rounds (`univariate`) or trials (`joint`)."""

    mode: Mode = "univariate"
    sampler: str = "auto"
    """Of the joint mode: auto, tpe, gp, cmaes or random."""
    keys: int = 3
    """Most priority parameters of the univariate mode."""
    rounds_per_parameter: int = 3
    priority: tuple[str, ...] = ()
    """Parameters that the user wants tuned, in order; empty leaves the choice to the agent."""
    halving: Halving | None = None
    """None: no trial is stopped early."""
    objectives: tuple[Objective, ...] = ()
    """Besides the metric."""
    constraints: tuple[Constraint, ...] = ()
    stopping_file: str = "stopping.json"
    """Where an agent writes the rules of `halving` among an experiment's files."""
    interactive: bool = False
    """Whether a run on a terminal asks after each loop, where the command line does not say."""
