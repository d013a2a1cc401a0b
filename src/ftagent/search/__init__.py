"""Numeric search strategies over a scenario's parameters: pure, deterministic, no I/O."""

from ftagent.search import halving, joint, pareto, univariate
from ftagent.search.trial import Rung, Trial

__all__ = ["Rung", "Trial", "halving", "joint", "pareto", "univariate"]
