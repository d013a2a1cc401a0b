"""Round by round: what was changed, how it scored, what the agent said of it."""

from __future__ import annotations

from typing import Any

from ftagent.core.types import Parameter
from ftagent.report.markup import code, plain, table
from ftagent.report.text import number
from ftagent.report.tuning.study import Round, Study
from ftagent.report.tuning.texts import Words

_FROM_CACHE = "from the cache"


def section(study: Study, say: Words) -> list[str]:
    """A table of all rounds, then one paragraph for each."""
    lines = [f"## {say('rounds')}", "", *_how(study, say)]
    if not study.rounds:
        return [*lines, say("no_rounds"), ""]
    direction = say(f"direction_{study.direction}")
    lines += [say("intervals", metric=plain(study.metric), direction=direction), ""]
    header = [say(key) for key in ("round", "change", "score", "against_default", "against_best", "result")]
    lines += table(header, [_row(study, position, say) for position in range(len(study.rounds))])
    for one in study.rounds:
        if one.loop is not None:
            lines += _told(study, one, say)
    return lines


def subject(loop: int | None, say: Words) -> str:
    """The default configuration, or a loop."""
    return say("the_default") if loop is None else say("loop", loop=loop)


def shown(value: Any) -> str:
    """A parameter's value as code; floats without noise in their last digits."""
    return code(f"{value:.6g}" if isinstance(value, float) else str(value)) or '`""`'


def range_of(parameter: Parameter | None, say: Words) -> str:
    """What a parameter may be; empty for one that the space does not know."""
    if parameter is None:
        return ""
    if not parameter.tunable:
        return say("fixed")
    if parameter.kind == "choice":
        return say.listed([shown(choice) for choice in parameter.choices])
    text = f"{_bound(parameter.low)} … {_bound(parameter.high)}"
    return say("log_scale", range=text) if parameter.log else text


def changes(before: Any, after: Any) -> list[str]:
    """`name a → b` of every parameter that differs."""
    names = [name for name in after if before.get(name) != after[name]]
    return [f"{code(name)} {shown(before.get(name))} → {shown(after[name])}" for name in names]


def cached_stages(study: Study) -> int:
    """Training stages whose result was known, so that their time is no training's."""
    stages = [*study.state.baseline_stages, *(s for item in study.state.experiments for s in item.stages)]
    return sum(record.purpose == "full" and record.execution.detail == _FROM_CACHE for record in stages)


def _bound(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _how(study: Study, say: Words) -> list[str]:
    plan = study.tuning.plan
    told = [say(f"search_{plan.mode}", keys=plan.keys, rounds=plan.rounds_per_parameter, sampler=code(plan.sampler))]
    decided = next((decided for item in study.state.experiments if (decided := item.hypothesis.plan).get("keys")), {})
    if decided:
        told.append(say("priority", keys=say.listed([code(str(key)) for key in decided["keys"]])))
    if decided.get("why"):
        told.append(say("because", why=plain(str(decided["why"]))))
    if plan.halving is not None:
        rule = {"metric": code(plan.halving.metric), "rungs": plan.halving.rungs}
        told.append(say("halving_rule", **rule, reduction=f"{plan.halving.reduction:g}"))
    return [say.sentences(*told), ""]


def _row(study: Study, position: int, say: Words) -> list[str]:
    one, base = study.rounds[position], study.rounds[0]
    before = study.best_before(position)
    if one.loop is None:
        return [say("the_default"), say("no_change"), say.score(one.score), "-", "-", say("end_scored")]
    moved = changes(_parent(study, one).params, one.params)
    apart = ["-", "-"]
    if one.score is not None:
        apart = [
            f"{one.score.value - other.score.value:+.4f}" if other is not None and other.score is not None else "-"
            for other in (base if base.loop is None else None, before)
        ]
    return [say("loop", loop=one.loop), say.listed(moved) or say("no_change"), say.score(one.score), *apart,
            _result(study, one, say)]  # fmt: skip


def _result(study: Study, one: Round, say: Words) -> str:
    end = f"end_{one.end}"
    if one.end == "scored" and one.decision in ("accept", "reject"):
        end = f"{end}_{one.decision}"
    exceeded = study.exceeded(one)
    more = [say("exceeds", names=say.listed([code(name) for name in exceeded]))] if exceeded else []
    return say("and").join([say(end), *more])


def _parent(study: Study, one: Round) -> Round:
    """The configuration that a round started from; the default where it names none."""
    default = Round(None, study.default, None, "open", {})
    return next((other for other in study.rounds if other.loop == one.parent), default)


def _told(study: Study, one: Round, say: Words) -> list[str]:
    parent = _parent(study, one)
    lines = [f"### {say('item', label=say('loop', loop=one.loop), text=plain(one.title))}", ""]
    if moved := changes(parent.params, one.params):
        lines.append(f"- {say('changed_from', subject=subject(parent.loop, say), changes=say.listed(moved))}")
    values = [f"{code(name)} {shown(value)}" for name, value in one.params.items()]
    lines.append(f"- {say('item', label=say('configuration'), text=say.listed(values))}")
    told = [("why", one.reason), ("advice", one.advice), ("failure", one.failure if one.score is None else "")]
    told += [("note", note) for note in one.notes if note not in one.failure]
    lines += [f"- {say('item', label=say(key), text=plain(text))}" for key, text in told if text]
    if "seconds" in one.measured:
        peak = one.measured.get("peak_mb")
        memory = "" if peak is None else say("peak", peak=f"{peak:.0f}")
        lines.append(f"- {say('seconds', seconds=number(one.measured['seconds']))}{memory}")
    more = {name: value for name, value in one.measured.items() if name not in ("seconds", "peak_mb")}
    if more:
        lines.append("- " + say.listed([f"{code(name)} {number(value)}" for name, value in more.items()]))
    return [*lines, ""]
