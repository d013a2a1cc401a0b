"""What a session leaves for people: result.json, reports, the model card, lessons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftagent.core.errors import StorageFull
from ftagent.core.types import Candidate

if TYPE_CHECKING:
    from ftagent.core.observer import Observer
    from ftagent.core.run_folder import RunFolder
    from ftagent.core.session import Session
    from ftagent.core.state import State
    from ftagent.parts import Parts
    from ftagent.request import RunRequest


def conclude(
    folder: RunFolder, session: Session, document: dict[str, Any], built: Parts, request: RunRequest, observer: Observer
) -> Path | None:
    """Write what people read; returns the tuning report, if any. A full disk here loses nothing that is recorded."""
    from ftagent.agents.memory import remember
    from ftagent.report import write_card, write_report, write_tuning_report

    report: Path | None = None
    try:
        folder.write_json(folder.path / "result.json", document)
        if session.state.baseline_scores:
            write_report(folder, session.state)
        if folder.best.is_dir() and (candidate := _selected(session.state, built)) is not None:
            write_card(folder, session.state, built.scenario.stages(candidate, "full"))
        if built.memory is not None:
            remember(built.memory, session.state, folder, observer.note)
        if session.state.status is not None and built.scenario.brief().plan is not None:
            report = write_tuning_report(folder, session.state, request.report_lang, request.reports_dir)
    except (StorageFull, OSError) as error:
        observer.note(f"the report could not be written: {error}; `ftagent report {folder.path}` writes it again")
    return report


def _selected(state: State, built: Parts) -> Candidate | None:
    """What the run recommends; None while it recommends nothing, and for a baseline that is no configuration."""
    if state.selected is None:
        return None
    if state.selected.loop is None:
        return built.scenario.baseline() if built.scenario.brief().plan is not None else None
    chosen = state.experiments[state.selected.loop]
    return Candidate(chosen.loop, chosen.files, chosen.hypothesis.params)
