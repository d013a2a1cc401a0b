"""What a prompt shows of a run. Of all scores only validation is ever read here: no other split reaches a model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ftagent.agents.sections import Section, shrinking
from ftagent.core import policy
from ftagent.core.types import Brief, Experiment, Files, Hypothesis, Left, Parameter, Score, Trace
from ftagent.core.untrusted import untrusted

LONGEST_TEXT = 400
"""Characters of one text of an older loop; a longer one is left out, never cut."""
MOST_FAILURES = 8
MOST_LESSONS = 8
_OBSERVATIONS = 3


def score_words(score: Score | None) -> str:
    """`accuracy 0.4320 ± 0.0157 (500 items)`."""
    return f"{score.metric} {score.value:.4f} ± {score.stderr:.4f} ({score.n} items)" if score else "not measured"


def leader_words(trace: Trace) -> str:
    """What to build on: the best posterior mean."""
    best = policy.ranking(trace.experiments, trace.baseline, trace.direction)
    if not best or best[0] is None:
        return "the baseline itself; no experiment is better yet"
    leader = experiment_of(trace, best[0])
    return f"loop {best[0]}, {score_words(leader.validation if leader else None)}"


def experiment_of(trace: Trace, loop: int | None) -> Experiment | None:
    """The experiment of a loop; None for the baseline and for what the trace does not hold."""
    if loop is None:
        return None
    if loop < len(trace.experiments) and trace.experiments[loop].loop == loop:
        return trace.experiments[loop]  # the usual case: none is left out
    return next((experiment for experiment in trace.experiments if experiment.loop == loop), None)


def budget_words(left: Left | None) -> str:
    """What the run may still use, this loop included; empty where nothing limits it."""
    if left is None:
        return ""
    loops = "" if left.loops is None else "this loop is the last" if left.loops == 1 else f"{left.loops} loops"
    seconds = "" if left.seconds is None else f"{left.seconds:.0f} seconds"
    usd = "" if left.usd is None else f"{left.usd:.4f} dollars"
    return ", ".join(filter(None, (loops, seconds, usd)))


def space_section(space: Sequence[Parameter]) -> Section:
    """Every parameter: values, default, what it does and costs; without these two where there is no room."""
    if not space:
        return Section("space", ("(no parameters: everything is in the files)",))
    ranges = [f"- {parameter.name}: {_range(parameter)}" for parameter in space]
    whole = [
        "; ".join(filter(None, (line, parameter.description, parameter.cost and f"cost: {parameter.cost}")))
        for line, parameter in zip(ranges, space, strict=True)
    ]
    return Section("space", ("\n".join(whole), "\n".join(ranges)))


def _range(parameter: Parameter) -> str:
    values = ", ".join(map(str, parameter.choices))
    if parameter.kind != "choice":
        scale = ", on a logarithmic scale" if parameter.log else ""
        values = f"{parameter.kind} from {parameter.low} to {parameter.high}{scale}"
    return f"{values} (default {parameter.default})" + ("" if parameter.tunable else ", protected: never changed")


def details_section(brief: Brief) -> Section:
    return Section("details", shrinking(brief.details, "details of data and limits"))


def lessons_section(lessons: Sequence[str]) -> Section:
    """Of earlier runs, the most relevant first."""
    kept = list(lessons[:MOST_LESSONS])
    forms = [untrusted("lessons", "\n".join(f"- {line}" for line in kept[:n])) for n in range(len(kept), 0, -1)]
    return Section("lessons", (*forms, f"({len(lessons)} lessons left out for lack of room)" if kept else ""))


def pending_section(pending: Sequence[Hypothesis]) -> Section:
    lines = "\n".join(f"- {hypothesis.title}" for hypothesis in pending)
    short = f"({len(pending)} experiments are in flight)" if pending else ""
    return Section("pending", (untrusted("in flight", lines), short) if pending else ("",))


def files_section(files: Files, name: str) -> list[Section]:
    """One section per file, so that each is whole or named as left out; joined under `name` by the caller."""
    sections = []
    for path in sorted(files):
        text = files[path]
        line = f"(file {path}, {len(text.splitlines())} lines: left out for lack of room)"
        sections.append(Section(f"{name}:{path}", (untrusted(f"file {path}", text, exact=True), line)))
    return sections


def changes_section(before: Files, after: Files) -> Section:
    """What an experiment's files change: a diff, or the numbers of lines where that is too long."""
    diff: list[str] = []
    lines: list[str] = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, "").splitlines(), after.get(name, "").splitlines()
        changed = list(difflib.unified_diff(old, new, f"before/{name}", f"after/{name}", lineterm="", n=2))
        added = sum(line.startswith("+") for line in changed[2:])
        removed = sum(line.startswith("-") for line in changed[2:])
        diff += changed
        if changed:
            lines.append(f"{name}: {added} lines added, {removed} removed")
    if not diff:
        return Section("changes", ("no file differs",))
    return Section("changes", (untrusted("changes", "\n".join(diff), exact=True), "; ".join(lines)))


def hypothesis_block(hypothesis: Hypothesis) -> str:
    """All that was proposed."""
    base = "the baseline" if hypothesis.parent is None else f"loop {hypothesis.parent}"
    lines = [f"{hypothesis.kind} on {base}: {hypothesis.title}", f"reason: {hypothesis.reason}"]
    lines += [f"expected effect: {hypothesis.expected_effect}"] if hypothesis.expected_effect else []
    lines += [f"to be measured: {hypothesis.measure}"] if hypothesis.measure else []
    lines += [f"parameters: {_pairs(hypothesis.params)}"] if hypothesis.params else []
    return untrusted("hypothesis", "\n".join(lines))


def mistakes_block(score: Score | None) -> str:
    """Error categories and excerpts of wrong outputs on validation items."""
    if score is None or not (score.errors or score.mistakes):
        return ""
    counts = ", ".join(f"{category} {number}" for category, number in score.errors.items())
    return untrusted("wrong outputs", "\n".join([f"error categories: {counts}", *(f"- {m}" for m in score.mistakes)]))


def failures_section(experiments: Iterable[Experiment]) -> Section:
    """What failed and must not be tried again: the same failure once, with its latest hypothesis, the latest first."""
    seen: dict[str, list[Experiment]] = {}
    for experiment in sorted(experiments, key=lambda one: -one.loop):
        if experiment.failure and not experiment.hypothesis.abandoned:
            seen.setdefault(_shape(experiment.failure), []).append(experiment)
    lines = [_failed(same) for same in seen.values()]
    if not lines:
        return Section("failures", ("",))
    forms = [
        untrusted("failures", "\n".join(lines[:most])) + _more(len(lines) - most, "older failures")
        for most in (MOST_FAILURES, MOST_FAILURES // 2, 2)
    ]
    return Section("failures", (*dict.fromkeys(forms), f"({len(lines)} failures left out for lack of room)"))


def siblings_section(trace: Trace, parent: int | None) -> Section:
    """Results of what was built on the same experiment."""
    same = [e for e in trace.experiments if e.hypothesis.parent == parent and not e.hypothesis.abandoned]
    if parent is None or not same:
        return Section("siblings", ("",))
    lines = [short_row(trace, experiment) for experiment in same[-6:]]
    short = f"({len(same)} other experiments on loop {parent} left out for lack of room)"
    return Section("siblings", (untrusted("siblings", "\n".join(lines)) + _more(len(same) - 6, "older ones"), short))


def short_row(trace: Trace, experiment: Experiment) -> str:
    """An experiment in one line."""
    hypothesis = experiment.hypothesis
    base = "" if hypothesis.parent is None else f" on loop {hypothesis.parent}"
    return f"- loop {experiment.loop} ({hypothesis.kind}{base}): {hypothesis.title} → {_result(trace, experiment)}"


def full_row(brief: Brief, trace: Trace, experiment: Experiment) -> str:
    """An experiment with why, what it changed and what was seen."""
    hypothesis, feedback = experiment.hypothesis, experiment.feedback
    lines = [short_row(trace, experiment), _whole("reason", hypothesis.reason)]
    changed = changes_of(brief, trace, experiment)
    if changed:
        lines.append("  set: " + ", ".join(f"{name} {old} → {new}" for name, (old, new) in changed.items()))
    if feedback is not None:
        lines += [_whole("seen", text) for text in feedback.observations[-_OBSERVATIONS:]]
        lines.append(_whole("then advised", feedback.next))
    return "\n".join(filter(None, lines))


def changes_of(brief: Brief, trace: Trace, experiment: Experiment) -> dict[str, tuple[Any, Any]]:
    """Parameter → (before, after), against the parent or, without one, the defaults."""
    parent = experiment_of(trace, experiment.hypothesis.parent)
    before: Mapping[str, Any] = {p.name: brief.baseline_params.get(p.name, p.default) for p in brief.space}
    if parent is not None:
        before = {**before, **parent.hypothesis.params}
    after = experiment.hypothesis.params
    return {name: (before.get(name), value) for name, value in after.items() if before.get(name) != value}


def effect(trace: Trace, experiment: Experiment) -> float | None:
    """Validation score minus that of the parent (the baseline without one), positive where it is better."""
    parent = experiment_of(trace, experiment.hypothesis.parent)
    before = parent.validation if parent is not None else trace.baseline
    if experiment.validation is None or before is None:
        return None
    difference = experiment.validation.value - before.value
    return difference if trace.direction == "maximize" else -difference


def without_abandoned(trace: Trace) -> Trace:
    """The trace for a policy: what was never tried is nothing to mend."""
    return replace(trace, experiments=tuple(e for e in trace.experiments if not e.hypothesis.abandoned))


def _result(trace: Trace, experiment: Experiment) -> str:
    if experiment.validation is None:
        return f"failed: {experiment.failure}" if experiment.failure else "no score yet"
    gain = effect(trace, experiment)
    against = "" if gain is None else f", {gain:+.4f} against what it is built on"
    decision = f", {experiment.feedback.decision}ed" if experiment.feedback else ""
    return f"{score_words(experiment.validation)}{against}{decision}"


def _whole(label: str, text: str) -> str:
    text = " ".join(text.split())
    if len(text) > LONGEST_TEXT:
        return f"  {label}: (text of {len(text)} characters left out)"
    return f"  {label}: {text}" if text else ""


def _pairs(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in params.items())


def _failed(same: Sequence[Experiment]) -> str:
    """A line for experiments that failed alike, the latest first."""
    also = f" (so did loops {', '.join(str(one.loop) for one in same[1:6])})" if len(same) > 1 else ""
    return f"- loop {same[0].loop}: {same[0].hypothesis.title} → {same[0].failure}{also}"


def _shape(failure: str) -> str:
    """A failure without its numbers: the same error at another place is the same."""
    return "".join("0" if sign.isdigit() else sign for sign in failure)


def _more(number: int, what: str) -> str:
    return f"\n({number} {what} left out)" if number > 0 else ""
