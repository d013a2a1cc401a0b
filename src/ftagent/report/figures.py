"""Figures of a run: the score of each loop with its interval, and the loss curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftagent.core.state import State
from ftagent.core.types import Experiment, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE = "#6b7280"
POINT = "#2563eb"
CHOSEN = "#059669"
FAILED = "#dc2626"
_MOST_CURVES = 8


def write_figures(state: State, folder: Path) -> list[Path]:
    """Draw what there is to draw into `folder` as SVG. Nothing is drawn where nothing was measured."""
    figures = {"scores.svg": _scores(state), "losses.svg": _losses(state)}
    written = []
    for name, figure in figures.items():
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            written.append(_save(figure, folder / name))
    return written


def _save(figure: Figure, path: Path) -> Path:
    import io

    from matplotlib import rc_context

    from ftagent.core.files import atomic_write

    buffer = io.BytesIO()
    # Without salt and date the same run would give a different file each time.
    with rc_context({"svg.hashsalt": "ftagent"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    atomic_write(path, buffer.getvalue())
    return path


def new_figure(height: float) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _scores(state: State) -> Figure | None:
    from matplotlib.ticker import MaxNLocator

    base = state.baseline_scores.get("validation")
    scored = [(item, item.validation) for item in state.experiments if item.validation]
    if base is None and not scored:
        return None
    figure, axes = new_figure(3.4)
    if base is not None:
        axes.axhspan(*base.ci95, color=BASE, alpha=0.15, linewidth=0)
        axes.axhline(base.value, color=BASE, linewidth=1.2, label=f"baseline {base.value:.3f}")
    selected = state.selected.loop if state.selected else None
    for chosen, colour, label in ((False, POINT, "validation, 95 % interval"), (True, CHOSEN, "selected")):
        part = [(item, score) for item, score in scored if (item.loop == selected) is chosen]
        if part:
            _bars(axes, part, colour, label)
    failed = [item.loop for item in state.experiments if item.feedback and not item.validation]
    if failed:
        # Missing is not zero: the mark lies on the axis, outside the scale.
        at_edge = axes.get_xaxis_transform()
        axes.plot(failed, [0.0] * len(failed), "x", color=FAILED, transform=at_edge, clip_on=False, label="no score")
    axes.set_xlabel("loop")
    axes.set_ylabel(state.created.metric if state.created else "score")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not scored:
        axes.set_xticks([])
    axes.legend(frameon=False, fontsize=8)
    return figure


def _bars(axes: Any, part: list[tuple[Experiment, Score]], colour: str, label: str) -> None:
    loops = [item.loop for item, _ in part]
    values = [score.value for _, score in part]
    below = [max(0.0, score.value - score.ci95[0]) for _, score in part]
    above = [max(0.0, score.ci95[1] - score.value) for _, score in part]
    axes.errorbar(loops, values, yerr=[below, above], fmt="o", color=colour, capsize=3, markersize=5, label=label)


def _losses(state: State) -> Figure | None:
    curves = [item for item in state.experiments if len(item.losses) > 1]
    if not curves:
        return None
    selected = state.selected.loop if state.selected else None
    shown = curves[-_MOST_CURVES:]
    shown += [item for item in curves if item.loop == selected and item not in shown]
    figure, axes = new_figure(3.0)
    for item in shown:
        steps, losses = zip(*item.losses, strict=True)
        width = 2.2 if item.loop == selected else 1.2
        axes.plot(steps, losses, linewidth=width, label=f"loop {item.loop}")
    axes.set_xlabel("training step")
    axes.set_ylabel("training loss")
    axes.legend(frameon=False, fontsize=8)
    return figure
