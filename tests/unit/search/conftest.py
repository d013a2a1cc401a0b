"""A space with every kind of parameter, and a search that is driven by a function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ftagent.core.types import Direction, Parameter
from ftagent.search import Trial, joint

SPACE = (
    Parameter("learning_rate", "float", 2e-5, 2e-6, 2e-3, log=True),
    Parameter("epochs", "int", 1, 1, 4),
    Parameter("batch_size", "choice", 16, choices=(8, 16, 32, 64)),
    Parameter("warmup_ratio", "float", 0.1, 0.0, 0.3),
    Parameter("loss", "choice", "cosine", choices=("cosine", "cosent", "angle")),
    Parameter("output", "choice", "out", choices=("out", "other"), tunable=False),
)
DEFAULT: dict[str, Any] = {parameter.name: parameter.default for parameter in SPACE}
Metric = Callable[[Mapping[str, Any]], float | None]


def quality(params: Mapping[str, Any]) -> float:
    """Best at a learning rate of 4e-4, 3 epochs, batches of 32 and cosent: 0."""
    rate = math.log10(params["learning_rate"] / 4e-4)
    distance: float = (
        rate**2
        + 0.1 * (params["epochs"] - 3) ** 2
        + 0.1 * math.log2(params["batch_size"] / 32) ** 2
        + (params["warmup_ratio"] - 0.2) ** 2
        + 0.3 * (params["loss"] != "cosent")
    )
    return -distance


def search(metric: Metric, count: int, seed: int = 0, direction: Direction = "maximize") -> list[Trial]:
    """`count` trials, the default included."""
    trials = [Trial(DEFAULT, metric(DEFAULT))]
    while len(trials) < count:
        params = joint.suggest(SPACE, direction, trials, seed)
        trials.append(Trial(params, metric(params)))
    return trials


def valid(params: Mapping[str, Any]) -> bool:
    """Every value is a plain one that its parameter can have; what is not tunable is the default."""
    return list(params) == list(DEFAULT) and all(
        (value in p.choices and (p.tunable or value == p.default))
        if p.kind == "choice"
        else type(value) is (int if p.kind == "int" else float)
        and p.low is not None
        and p.high is not None
        and p.low <= value <= p.high
        and value == (value if p.kind == "int" else float(f"{value:.4g}"))
        for p in SPACE
        for value in [params[p.name]]
    )


@pytest.fixture(params=[0, 1, 2])
def seed(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number
