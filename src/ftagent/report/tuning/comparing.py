"""A run beside its control runs, at the same number of trials."""

from __future__ import annotations

from collections.abc import Sequence

from ftagent.core.types import Score
from ftagent.report.markup import plain, table
from ftagent.report.text import clock
from ftagent.report.tuning.rounds import subject
from ftagent.report.tuning.study import Study
from ftagent.report.tuning.texts import TEXTS, Words

_AFTER = (1, 5, 10, 20, 40)


def section(study: Study, controls: Sequence[Study], say: Words) -> list[str]:
    """Nothing where there are no control runs."""
    if not controls:
        return []
    arms = [study, *controls]
    longest = max(_loops(arm) for arm in arms)
    after = [n for n in _AFTER if n < longest]
    header = [say("strategy"), *(say("after", n=n) for n in after), say("after", n=longest), say("gain"),
              say("first_best"), say("training_time")]  # fmt: skip
    rows = [_row(arm, say("ours") if arm is study else name_of(arm, say), [*after, longest], say) for arm in arms]
    lines = [f"## {say('controls')}", "", say("controls_are"), "", *table(header, rows)]
    unfinished = [name_of(arm, say) for arm in controls if arm.state.status is None]
    return lines + ([say("controls_open", names=say.listed(unfinished)), ""] if unfinished else [])


def name_of(arm: Study, say: Words) -> str:
    """A control's strategy in words."""
    return say(arm.name) if arm.name in TEXTS else plain(arm.name)


def best_so_far(arm: Study) -> list[Score | None]:
    """After the default and after each loop: the best score on validation within the constraints."""
    best = [arm.best_before(position + 1) for position in range(len(arm.rounds))]
    return [one.score if one else None for one in best]


def _row(arm: Study, name: str, after: Sequence[int], say: Words) -> list[str]:
    scores = best_so_far(arm)
    cells = [f"{score.value:.4f}" if n < len(scores) and (score := scores[n]) else "-" for n in after[:-1]]
    last, base = scores[-1] if scores else None, scores[0] if scores else None
    gain = f"{last.value - base.value:+.4f}" if last and base else "-"
    first = next((n for n, score in enumerate(scores) if score is last), None)
    trained = sum(one.measured.get("seconds", 0.0) for one in arm.rounds if one.loop is not None)
    when = "-" if first is None else subject(arm.rounds[first].loop, say)
    return [name, *cells, say.score(last), gain, when, clock(trained)]


def _loops(arm: Study) -> int:
    return len(arm.state.experiments)
