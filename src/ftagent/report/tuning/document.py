"""The tuning report as markdown, in one language. It tells what the journal says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ftagent.report.markup import code, plain, table
from ftagent.report.text import clock, dollars, number
from ftagent.report.tuning import comparing, rounds
from ftagent.report.tuning.importance import FEWEST, Importance
from ftagent.report.tuning.rounds import shown, subject
from ftagent.report.tuning.study import Study
from ftagent.report.tuning.texts import Words


@dataclass(frozen=True)
class Material:
    """What all languages of a report tell."""

    study: Study
    controls: Sequence[Study]
    importance: Importance
    figures: Mapping[str, str]
    """Links by name: `best`, `live`, `pareto`."""
    when: str
    title: str
    model: str = ""
    """Where the best model lies."""
    export: str = ""
    """The command that opens the Optuna study."""


def document(material: Material, say: Words) -> str:
    """The whole report, ending in a newline."""
    sections: Sequence[Callable[[Material, Words], list[str]]] = (
        _head, _configurations, _rounds, _importance, _curves, _several, _constraints, _controls, _summary,
    )  # fmt: skip
    lines = [line for section in sections for line in section(material, say)]
    return "\n".join(lines).rstrip() + "\n"


def _head(material: Material, say: Words) -> list[str]:
    study, state = material.study, material.study.state
    status = say(f"status_{state.status or 'open'}")
    cost = dollars(state.cost_usd, state.unpriced_calls)
    spent = say("spent", rounds=len(state.experiments), time=clock(state.elapsed), cost=cost)
    return [
        f"# {say('title', name=plain(material.title))}",
        "",
        f"**{claim(study, say)}**",
        "",
        say.sentences(status, spent),
        "",
        say.sentences(say("written", when=material.when, run=code(study.name)), say("verbatim")),
        "",
    ]


def claim(study: Study, say: Words) -> str:
    """The run's result as one sentence."""
    chosen = study.state.selected
    if chosen is None:
        return say("claim_none")
    if chosen.loop is None:
        return say("claim_default_constrained" if study.tuning.plan.constraints else "claim_default")
    score = study.state.experiments[chosen.loop].scores.get(chosen.split)
    base = study.state.baseline_scores.get(chosen.split)
    numbers = {"metric": plain(study.metric), "score": say.score(score), "base": say.score(base)}
    return say(f"claim_{chosen.verdict}", loop=chosen.loop, split=say(f"split_{chosen.split}"), **numbers)


def _configurations(material: Material, say: Words) -> list[str]:
    study, best = material.study, material.study.chosen()
    default, known = study.default, {p.name: p for p in study.tuning.space}
    rows = []
    for name in dict.fromkeys([*default, *study.names]):
        value = best.params.get(name) if best else None
        cell = shown(value) if best is not None else "-"
        if best is not None and value != default.get(name):
            cell = f"**{cell}**"
        rows.append([code(name), shown(default.get(name)), cell, rounds.range_of(known.get(name), say)])
    lines = [f"## {say('configurations')}", ""]
    if best is not None:
        lines += [say("best_is", subject=subject(best.loop, say)), ""]
    return lines + table([say("parameter"), say("default"), say("best"), say("range")], rows)


def _rounds(material: Material, say: Words) -> list[str]:
    return rounds.section(material.study, say)


def _importance(material: Material, say: Words) -> list[str]:
    found, lines = material.importance, [f"## {say('importance')}", ""]
    if found.missing:
        return [*lines, say(f"importance_{found.missing}", trials=found.trials, fewest=FEWEST), ""]
    lines += [say.sentences(say("importance_is", trials=found.trials), say("importance_doubt")), ""]
    rows = [[code(name), f"{100 * share:.0f} %"] for name, share in found.shares.items()]
    return lines + table([say("parameter"), say("share")], rows)


def _curves(material: Material, say: Words) -> list[str]:
    images = [_image(material, name, say) for name in ("best", "live") if name in material.figures]
    return [f"## {say('curves')}", "", *([line for image in images for line in image] or [say("no_curves"), ""])]


def _image(material: Material, name: str, say: Words) -> list[str]:
    return [f"![{say(f'picture_{name}')}]({material.figures[name]})", ""]


def _several(material: Material, say: Words) -> list[str]:
    study = material.study
    objectives = study.tuning.plan.objectives
    if not objectives:
        return []
    header = [say("round"), plain(study.metric), *(plain(objective.name) for objective in objectives)]
    rows = [
        [subject(one.loop, say), *(number(value) for value in study.objectives(one) or ())] for one in study.front()
    ]
    lines = [f"## {say('several')}", "", *([say("front"), "", *table(header, rows)] if rows else [say("no_front"), ""])]
    return lines + (_image(material, "pareto", say) if "pareto" in material.figures else [])


def _constraints(material: Material, say: Words) -> list[str]:
    study = material.study
    if not study.tuning.plan.constraints:
        return []
    rows = []
    for limit in study.tuning.plan.constraints:
        measured = [one for one in study.rounds if limit.name in one.measured]
        over = [one for one in measured if one.measured[limit.name] > limit.at_most]
        kept = say("of_rounds", kept=len(measured) - len(over), measured=len(measured))
        who = say.listed([f"{subject(one.loop, say)} ({number(one.measured[limit.name])})" for one in over])
        rows.append([code(limit.name), f"{limit.at_most:g}", kept, who or say("nobody")])
    header = [say("constraint"), say("at_most"), say("kept_by"), say("exceeded_by")]
    return [f"## {say('constraints')}", "", *table(header, rows)]


def _controls(material: Material, say: Words) -> list[str]:
    return comparing.section(material.study, material.controls, say)


def _summary(material: Material, say: Words) -> list[str]:
    study, state = material.study, material.study.state
    selected = state.selected
    lines = [f"## {say('summary')}", "", claim(study, say), ""]
    best = state.experiments[selected.loop].scores if selected and selected.loop is not None else {}
    rows = []
    for split in ("validation", "confirm", "test"):
        base, score = state.baseline_scores.get(split), best.get(split)
        if base is None and score is None and split == "confirm":
            continue
        apart = f"{score.value - base.value:+.4f}" if score and base else "-"
        count = str((score or base).n) if score or base else "-"  # type: ignore[union-attr]  # one of them is there
        cell = say.score(score) if best else "-"
        rows.append([say(f"split_{split}"), say.score(base), cell, apart, count])
    name = subject(selected.loop, say) if selected and selected.loop is not None else say("best")
    lines += table([say("split"), say("the_default"), name, say("difference"), say("items")], rows)
    if selected is not None and selected.loop is not None and selected.p_value is not None:
        split, verdict = say(f"split_{selected.split}"), say(f"verdict_{selected.verdict}")
        paired = say("paired", split=split, p=f"{selected.p_value:.3g}", n=selected.comparisons, verdict=verdict)
        lines += [say.sentences(paired, say("paired_record", reason=plain(selected.reason))), ""]
    opened = say("test_opened", times=state.test_openings) if state.test_openings else say("test_never")
    sealed = state.created is not None and state.created.sealed
    lines += [f"- {opened}", *([] if sealed else [f"- {say('not_sealed')}"])]
    if cached := rounds.cached_stages(study):
        lines.append(f"- {say('cached', count=cached)}")
    lines += [f"- {say('model_at', path=code(material.model))}"] if material.model else []
    lines += [f"- {say('study_at', command=code(material.export))}"] if material.export else []
    return [*lines, ""]
