"""Pictures of a search: the best so far beside the controls, live metrics, the Pareto front. Labels are English."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftagent.core.types import Score
from ftagent.report.figures import BASE, CHOSEN, FAILED, POINT, new_figure
from ftagent.report.tuning.comparing import best_so_far
from ftagent.report.tuning.study import Round, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CONTROLS = {"random": ("#9ca3af", "random search"), "tpe": ("#d97706", "Optuna TPE")}
_MOST_CURVES = 30
_DEFAULT = -1


def write_figures(study: Study, controls: Sequence[Study], folder: Path) -> dict[str, Path]:
    """PNG files in `folder` by name; what there is nothing to draw of is left out. Raises StorageFull."""
    made = {"best": _best(study, controls), "live": _live(study), "pareto": _pareto(study)}
    paths = {}
    for name, figure in made.items():
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            paths[name] = _save(figure, folder / f"{name}.png")
    return paths


def _save(figure: Figure, path: Path) -> Path:
    import io

    from ftagent.core.files import atomic_write

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    atomic_write(path, buffer.getvalue())
    return path


def _best(study: Study, controls: Sequence[Study]) -> Figure | None:
    from matplotlib.ticker import MaxNLocator

    if not any(one.score for one in study.rounds):
        return None
    figure, axes = new_figure(3.6)
    for control in controls:
        colour, label = _CONTROLS.get(control.name, (BASE, control.name))
        _steps(axes, control, colour, f"best so far, {label}", 1.2)
    _steps(axes, study, CHOSEN, "best so far, this run", 2.0)
    scored = [(_place(one), one.score) for one in study.rounds if one.score is not None]
    below = [max(0.0, score.value - score.ci95[0]) for _, score in scored]
    above = [max(0.0, score.ci95[1] - score.value) for _, score in scored]
    axes.errorbar(
        [place for place, _ in scored], [score.value for _, score in scored], yerr=[below, above], fmt="o",
        color=POINT, capsize=2, markersize=4, linewidth=0.8, label="trial, 95 % interval",
    )  # fmt: skip
    lost = [_place(one) for one in study.rounds if one.end in ("failed", "stopped")]
    if lost:
        at_edge = axes.get_xaxis_transform()
        axes.plot(lost, [0.0] * len(lost), "x", color=FAILED, transform=at_edge, clip_on=False, label="no score")
    reached = [score for control in controls for score in best_so_far(control) if score is not None]
    axes.set_ylim(*_heights([*(score for _, score in scored), *reached]))
    axes.set_xlabel("loop")
    axes.set_ylabel(study.metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(lambda place, _: "default" if place == _DEFAULT else f"{place:.0f}")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _heights(scores: Sequence[Score]) -> tuple[float, float]:
    """Room for the intervals, but for wide ones no more than the scores themselves take."""
    low, high = min(score.value for score in scores), max(score.value for score in scores)
    room = 1.5 * (high - low) or 0.05 * abs(high) or 0.05
    bottom = max(low - room, min(score.ci95[0] for score in scores) - 0.1 * room)
    return bottom, min(high + room, max(score.ci95[1] for score in scores) + 0.1 * room)


def _place(one: Round) -> int:
    return _DEFAULT if one.loop is None else one.loop


def _steps(axes: Any, arm: Study, colour: str, label: str, width: float) -> None:
    scores = zip(arm.rounds, best_so_far(arm), strict=True)
    points = [(_place(one), score.value) for one, score in scores if score is not None]
    if points:
        axes.step(*zip(*points, strict=True), where="post", color=colour, linewidth=width, label=label)


def _live(study: Study) -> Figure | None:
    curves = [one for one in study.rounds if one.curve]
    if not any(len(one.curve) > 1 for one in curves) or study.tuning.plan.halving is None:
        return None
    best = study.chosen()
    shown = curves[-_MOST_CURVES:]
    figure, axes = new_figure(3.2)
    for one in shown:
        steps, values = zip(*one.curve, strict=True)
        chosen = best is not None and one.loop == best.loop
        colour = CHOSEN if chosen else FAILED if one.end == "stopped" else BASE
        name = "the default" if one.loop is None else f"loop {one.loop}"
        label = name if chosen else None
        axes.plot(
            steps, values, color=colour, linewidth=2.0 if chosen else 0.9, alpha=1.0 if chosen else 0.7, label=label
        )
        if one.end == "stopped":
            axes.plot(steps[-1], values[-1], "x", color=FAILED, markersize=5)
    axes.set_xlabel("training step (x: stopped early)")
    axes.set_ylabel(study.tuning.plan.halving.metric)
    if best is not None and any(best.loop == one.loop for one in shown):
        axes.legend(frameon=False, fontsize=8)
    return figure


def _pareto(study: Study) -> Figure | None:
    """The metric against the first further objective; others are in the table."""
    if not study.tuning.plan.objectives:
        return None
    known = [(one, point) for one in study.rounds if (point := study.objectives(one))]
    if not known:
        return None
    figure, axes = new_figure(3.6)
    front = study.front()
    for inside, colour, label in ((False, BASE, "trial"), (True, CHOSEN, "Pareto front")):
        points = [point for one, point in known if (one in front) is inside]
        if points:
            axes.plot([p[1] for p in points], [p[0] for p in points], "o", color=colour, markersize=5, label=label)
    ends = sorted((point[1], point[0]) for one, point in known if one in front)
    if len(study.tuning.plan.objectives) == 1:
        axes.plot(*zip(*ends, strict=True), color=CHOSEN, linewidth=1.0)
    for one, point in known:
        name = "default" if one.loop is None else str(one.loop)
        axes.annotate(name, (point[1], point[0]), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlabel(study.tuning.plan.objectives[0].name)
    axes.set_ylabel(study.metric)
    axes.legend(frameon=False, fontsize=8)
    return figure
