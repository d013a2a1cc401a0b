"""Sections of the report that tell what is claimed, how honestly it was measured, and under what circumstances."""

from __future__ import annotations

import time
from typing import Any

from ftagent.core.run_folder import RunFolder
from ftagent.core.state import State
from ftagent.report.markup import code, plain, table
from ftagent.report.text import clock, dollars, number, plural, score_text

_VERDICTS = {
    "improved": "is better than the baseline",
    "tie": "cannot be told from the baseline",
    "worse": "is worse than the baseline",
}


def title(state: State, record: dict[str, Any]) -> str:
    """What was improved on what."""
    request = record.get("request", {})
    parts = [str(request[key]) for key in ("base_model", "benchmark") if request.get(key)]
    name = state.created.scenario if state.created else str(request.get("scenario", "run"))
    return f"{name}: {' on '.join(parts)}" if parts else f"{name} run"


def claim(state: State) -> str:
    """The headline as one plain sentence: what the run claims, and on which numbers."""
    chosen, created = state.selected, state.created
    if chosen is None or created is None:
        return "Nothing is claimed yet: the run has not selected anything."
    if chosen.loop is None:
        return "No experiment scored better than the baseline; the baseline is recommended."
    score = state.experiments[chosen.loop].scores.get(chosen.split)
    base = state.baseline_scores.get(chosen.split)
    numbers = f"{created.metric} {score_text(score)} against {score_text(base)} on {chosen.split}"
    return f"Loop {chosen.loop} {_VERDICTS[chosen.verdict]}: {numbers}."


def headline(state: State) -> list[str]:
    """The claim, the test it rests on, and how the run ended."""
    lines = [f"**{plain(claim(state))}**", ""]
    chosen = state.selected
    if chosen is not None and chosen.loop is not None:
        p_value = "not computed" if chosen.p_value is None else f"{chosen.p_value:.3g}"
        items = [["verdict", chosen.verdict], ["split", chosen.split], ["p-value", p_value],
                 ["comparisons", str(chosen.comparisons)], ["test", plain(chosen.reason)]]  # fmt: skip
        lines += table(["claim", ""], items)
    status = {"completed": "all loops were done", "budget": "a limit was reached", "stopped": "stopped by the user",
              "failed": "it failed", None: "it is not finished"}[state.status]  # fmt: skip
    loops = plural(len(state.experiments), "loop")
    return [*lines, f"How it ended: {status}, after {loops} and {clock(state.elapsed)}.", ""]


def honesty(state: State) -> list[str]:
    """How often the test was opened and whether commands could have seen answers."""
    opened = state.test_openings
    times = "never opened" if opened == 0 else f"opened {plural(opened, 'time')}"
    sealed = state.created is not None and state.created.sealed
    seal = "Sealed: commands could read neither the answers nor the network."
    if not sealed:
        seal = "**Not sealed**: commands could have read answers or the network; do not compare with sealed scores."
    return ["## How it was measured", "", f"- The sealed test split was {times}.", f"- {seal}", *_baseline(state), ""]


def _baseline(state: State) -> list[str]:
    score = state.baseline_scores.get("validation")
    if score is None:
        return ["- The baseline's validation score is missing."]
    lines = [f"- Baseline and experiments were scored on the same {plural(score.n, 'validation item')}."]
    if score.samples > 1:
        lines.append(f"- {score.samples} samples per item.")
    for split, scored in state.baseline_scores.items():
        more = ", ".join(f"{plain(name)} {number(value)}" for name, value in scored.details.items())
        if more:
            lines.append(f"- Baseline, {split}: {more}.")
    return [*lines, *(f"- Baseline: {plain(note)}." for note in score.notes)]


def spent(state: State) -> list[str]:
    """Each budget, spent and limit."""
    limits = state.limits
    rows = [
        ["loops", str(len(state.experiments)), _or_none(limits.loop_n)],
        ["steps", str(state.steps_done), "none"],
        ["time", clock(state.elapsed), "none" if limits.timeout is None else clock(limits.timeout)],
        [
            "cost",
            dollars(state.cost_usd, state.unpriced_calls),
            "none" if limits.budget_usd is None else dollars(limits.budget_usd),
        ],
    ]
    return ["## Time and cost", "", *table(["budget", "spent", "limit"], rows)]


def _or_none(value: object) -> str:
    return "none" if value is None else str(value)


def circumstances(folder: RunFolder, state: State, record: dict[str, Any]) -> list[str]:
    """Seed, place, versions: what somebody needs who wants the same numbers."""
    created = state.created
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.started_at)) if state.started_at else "missing"
    rows = [["run", code(folder.name)], ["started", started], ["seed", str(created.seed) if created else "missing"]]
    origin = (created.origin if created else "") or record.get("origin")
    if origin:
        rows.append(["forked from", code(str(origin))])
    for key in ("agent", "environment", "hardware"):
        if record.get(key):
            rows.append([key, plain(_flat(record[key]))])
    request = record.get("request", {})
    asked = {key: value for key, value in request.items() if value not in (None, "", [], {}, ())}
    rows += [[key.replace("_", " "), plain(_flat(value))] for key, value in asked.items() if key != "limits"]
    versions = record.get("versions", {})
    lines = ["## Circumstances", "", *table(["", ""], rows)]
    if isinstance(versions, dict) and versions:
        lines += table(["package", "version"], [[plain(str(k)), plain(str(v))] for k, v in versions.items()])
    return lines


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_flat(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_flat(item) for item in value)
    return str(value)
