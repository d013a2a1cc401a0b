"""What happened, one line per event. The same words on a terminal and in a file."""

from __future__ import annotations

from ftagent.core import events
from ftagent.core.events import Record
from ftagent.core.state import State
from ftagent.core.types import Score
from ftagent.report.text import clean, clock, dollars, plural, score_text, shorten


def greeting(state: State) -> list[str]:
    """What is known when a session starts."""
    created = state.created
    if created is None:
        return [f"run {state.path}"]
    lines = [f"run {state.path}: {created.scenario}, {created.metric}, seed {created.seed}"]
    if created.origin:
        lines.append(f"forked from {created.origin}")
    if state.experiments:
        lines.append(f"resumed after {plural(len(state.experiments), 'loop')}")
    if not created.sealed:
        lines.append("not sealed: commands of this run can read the answers or the network")
    return lines


def sentence(record: Record, state: State) -> str:
    """A line for `record`, or empty where it is nothing that a person waits for."""
    event = record.event
    match event:
        case events.LimitsChanged():
            return "limits changed"
        case events.Rewound():
            return f"gone back to {event.loop}:{event.step}"
        case events.Proposed():
            parent = event.hypothesis.parent
            of = "" if parent is None else f" (from loop {parent})"
            return f"loop {event.loop} propose: {shorten(event.hypothesis.title, 160)}{of}"
        case events.Built():
            attempts = plural(state.experiments[event.loop].attempts, "attempt")
            end = f"failed: {shorten(event.failure, 200)}" if event.failure else f"ready, {attempts}"
            return f"loop {event.loop} code: {end}"
        case events.Scored():
            return _scored(event, state)
        case events.Ran():
            end = f"failed: {shorten(event.failure, 200)}" if event.failure else "done"
            return f"loop {event.loop} run: {end} in {clock(event.seconds)}"
        case events.Reflected():
            said = f"loop {event.loop} feedback: {event.feedback.decision}, {shorten(event.feedback.reason, 200)}"
            return said + (f" ({_cost(state)} so far)" if state.calls else "")
        case events.TestOpened():
            return f"the sealed test is opened ({event.why})"
        case events.Selected():
            what = "the baseline" if event.loop is None else f"loop {event.loop}"
            return f"selected {what}: {event.verdict} ({clean(event.reason)})"
        case _:
            return ""


def _cost(state: State) -> str:
    return dollars(state.cost_usd, state.unpriced_calls, state.limits.budget_usd)


def _scored(event: events.Scored, state: State) -> str:
    who = "baseline" if event.loop is None else f"loop {event.loop}"
    line = f"{who} {event.split}: {event.score.metric} {score_text(event.score, items=True)}"
    base = state.baseline_scores.get(event.split)
    return line if event.loop is None or base is None else f"{line}, {_against(event.score, base)}"


def _against(score: Score, base: Score) -> str:
    return f"{score.value - base.value:+.3f} against the baseline"
