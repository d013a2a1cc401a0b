"""Writing the reports of a run where they belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftagent.core.errors import RequestError
from ftagent.core.files import atomic_write
from ftagent.core.run_folder import RunFolder
from ftagent.core.state import State
from ftagent.report import sections, views
from ftagent.report.figures import write_figures
from ftagent.report.html import report_html
from ftagent.report.markdown import report_markdown


def write_report(folder: RunFolder, state: State) -> list[Path]:
    """report.md, report.html and figures/*.svg in the run folder. Raises StorageFull."""
    figures = write_figures(state, folder.path / "figures")
    text = report_markdown(folder, state, record_of(folder), figures)
    paths = [folder.path / "report.md", folder.path / "report.html"]
    atomic_write(paths[0], text)
    atomic_write(paths[1], report_html(text, folder.path))
    return [*paths, *figures]


def record_of(folder: RunFolder) -> dict[str, Any]:
    """run.json, or nothing where it cannot be read: a report tells what is missing instead of failing."""
    try:
        return folder.read_record()
    except RequestError:
        return {}


def report_document(folder: RunFolder, state: State) -> dict[str, Any]:
    """`report RUN --format json`."""
    record = record_of(folder)
    created, chosen = state.created, state.selected
    return {
        "schema_version": 1,
        **views.show_document(folder, state, record.get("request", {})),
        "title": sections.title(state, record),
        "claim": sections.claim(state),
        "status": state.status,
        "scenario": created.scenario if created else None,
        "metric": created.metric if created else None,
        "direction": created.direction if created else None,
        "seed": created.seed if created else None,
        "sealed": created.sealed if created else None,
        "selected": {
            "loop": chosen.loop,
            "verdict": chosen.verdict,
            "split": chosen.split,
            "p_value": chosen.p_value,
            "comparisons": chosen.comparisons,
            "reason": chosen.reason,
        }
        if chosen
        else None,
        "test_openings": state.test_openings,
        "cost_usd": state.cost_usd,
        "seconds": round(state.elapsed, 3),
        "versions": record.get("versions", {}),
    }
