"""All experiments of a run in a bounded number of words: the best and the latest in full, the rest as an aggregate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ftagent.agents.sections import Section
from ftagent.agents.views import changes_of, effect, full_row, short_row
from ftagent.core import policy
from ftagent.core.types import Brief, Experiment, Trace
from ftagent.core.untrusted import untrusted

LEVELS = ((4, 4, 6), (3, 2, 4), (2, 1, 2), (1, 1, 0), (0, 0, 2), (0, 0, 0))
"""(latest in full, best in full, further latest in one line), from the most to the fewest words."""
_IDEAS = 4


def history_section(brief: Brief, trace: Trace) -> Section:
    """Experiments that were tried, by loop; bounded however many there are. Abandoned ones are only counted."""
    tried = [e for e in trace.experiments if not e.hypothesis.abandoned]
    if not trace.experiments:
        return Section("history", ("(none yet: this is the first)",))
    forms = [_form(brief, trace, tried, *level) for level in LEVELS]
    return Section("history", (*dict.fromkeys(forms), _counts(trace, tried)))


def _form(brief: Brief, trace: Trace, tried: Sequence[Experiment], latest: int, best: int, further: int) -> str:
    order = [loop for loop in policy.ranking(tried, None, trace.direction) if loop is not None]
    full = {e.loop for e in tried[len(tried) - latest :]} | set(order[:best]) if latest or best else set()
    rest = [e for e in tried if e.loop not in full]
    short = {e.loop for e in rest[len(rest) - further :]} if further else set()
    rows = [
        full_row(brief, trace, e) if e.loop in full else short_row(trace, e)
        for e in tried
        if e.loop in full or e.loop in short
    ]
    older = [e for e in rest if e.loop not in short]
    text = "\n".join([*_aggregate(brief, trace, tried, older), *rows])
    return f"{_counts(trace, tried)}\n{untrusted('experiments', text)}"


def _counts(trace: Trace, tried: Sequence[Experiment]) -> str:
    values = [e.validation.value for e in tried if e.validation is not None]
    scored = f", {len(values)} scored from {min(values):.4f} to {max(values):.4f}" if values else ""
    failed = sum(bool(e.failure) for e in tried)
    abandoned = len(trace.experiments) - len(tried)
    ends = (f", {failed} failed" if failed else "") + (f", {abandoned} without a proposal" if abandoned else "")
    return f"{len(trace.experiments)} so far{scored}{ends}."


def _aggregate(brief: Brief, trace: Trace, tried: Sequence[Experiment], older: Sequence[Experiment]) -> list[str]:
    """What is known of experiments that have no row of their own: effects by parameter, the best and worst ideas."""
    if not older:
        return []
    changes: dict[str, list[tuple[float, object]]] = defaultdict(list)
    ideas: list[tuple[float, Experiment]] = []
    for experiment in tried:
        gain = effect(trace, experiment)
        if gain is not None:
            for name, (_, new) in changes_of(brief, trace, experiment).items():
                changes[name].append((gain, new))
            if experiment in older:
                ideas.append((gain, experiment))
    lines = [f"{len(older)} older ones in sum; effects are those of changing a parameter, over all experiments:"]
    for name, found in sorted(changes.items()):
        gains = [gain for gain, _ in found]
        best, value = max(found, key=lambda pair: pair[0])
        lines.append(
            f"- {name}: changed {len(found)} times, mean effect {sum(gains) / len(gains):+.4f}, "
            f"best {best:+.4f} with {value}"
        )
    ideas.sort(key=lambda pair: (-pair[0], pair[1].loop))
    chosen = ideas if len(ideas) <= 2 * _IDEAS else [*ideas[:_IDEAS], *ideas[-_IDEAS:]]
    lines += ["the best and the worst of the older:"] if chosen else []
    lines += [f"- {gain:+.4f} loop {experiment.loop}: {experiment.hypothesis.title}" for gain, experiment in chosen]
    return [*lines, "the others:"]
