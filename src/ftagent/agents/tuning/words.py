"""What is said of a configuration: titles, reasons and evidence in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftagent.agents.space import defaults, shown
from ftagent.agents.tuning.trials import Best
from ftagent.agents.views import score_words
from ftagent.core.types import Brief


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """`learning_rate 2e-05 → 5e-05, batch_size 16 → 32`."""
    names = [name for name in after if before.get(name) != after[name]]
    return ", ".join(f"{name} {shown(before.get(name))} → {shown(after[name])}" for name in names)


def place_of(best: Best) -> str:
    """Which configuration that is."""
    return "the default configuration" if best.loop is None else f"loop {best.loop}"


def evidence(brief: Brief, best: Best) -> str:
    """What a change is made on and what speaks for that."""
    if best.score is None:
        unmeasured = changes(defaults(brief), best.params)
        return f"on the base configuration ({unmeasured}), not measured yet" if unmeasured else "on the defaults"
    lead = " and within noise of the default" if best.doubt and best.loop is not None else ""
    return f"on {place_of(best)}, the best so far ({score_words(best.score)}){lead}"


def expected(brief: Brief, best: Best) -> str:
    """What the experiment is hoped to do."""
    bound = "above" if brief.direction == "maximize" else "below"
    return f"{brief.metric} {bound} {best.score.value:.4f}" if best.score else f"a first {brief.metric}"
