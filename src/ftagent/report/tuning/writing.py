"""Writing the tuning report, its pictures and the Optuna study."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftagent.core.errors import RequestError
from ftagent.core.files import atomic_write
from ftagent.core.run_folder import RunFolder
from ftagent.core.state import State
from ftagent.report import sections
from ftagent.report.tuning.document import Material, document
from ftagent.report.tuning.figures import write_figures
from ftagent.report.tuning.importance import importance
from ftagent.report.tuning.optuna_study import write_study
from ftagent.report.tuning.study import Study, controls_of, study_of
from ftagent.report.tuning.texts import Language, Words
from ftagent.report.writing import record_of

ReportLanguage = Literal["en", "zh", "both"]


@dataclass(frozen=True)
class Written:
    """What was written."""

    report: Path
    study: Path


def reports_folder(folder: RunFolder, reports_dir: str | None) -> Path:
    """docs/reports of the run, or where the user wants them."""
    return Path(reports_dir) if reports_dir else folder.path / "docs/reports"


def tuned(folder: RunFolder, state: State) -> Study:
    """The run as trials. Raises RequestError for a run without a plan."""
    study = study_of(folder, state)
    if study is None:
        raise RequestError(f"{folder.name}: no run of scenario hpo, so there is no tuning report of it")
    return study


def write_tuning_report(
    folder: RunFolder, state: State, language: ReportLanguage, reports_dir: str | None = None
) -> Written:
    """agent_run_report_TIMESTAMP.md with its pictures, and the Optuna study beside it.

    Raises RequestError for a run without a plan, StorageFull, OSError.
    """
    target = reports_folder(folder, reports_dir)
    target.mkdir(parents=True, exist_ok=True)
    path = write_study(folder, tuned(folder, state), new_path(folder, target, "optuna"))
    report = new_path(folder, target, "md")
    atomic_write(report, tuning_text(folder, state, language, report, path))
    return Written(report, path)


def tuning_text(
    folder: RunFolder, state: State, language: ReportLanguage, report: Path, export: Path | None = None
) -> str:
    """The report that is to lie at `report`; its pictures are written into a folder beside it.

    Raises RequestError for a run without a plan, StorageFull, OSError.
    """
    study, controls = tuned(folder, state), controls_of(folder)
    pictures = write_figures(study, controls, report.with_suffix(""))
    material = Material(
        study=study,
        controls=controls,
        importance=importance(study),
        figures={name: os.path.relpath(path, report.parent) for name, path in pictures.items()},
        when=time.strftime("%Y-%m-%d %H:%M:%S"),
        title=sections.title(state, record_of(folder)),
        model=str(folder.best_overall_model) if folder.best_overall_model.is_dir() else "",
        export=f"optuna-dashboard sqlite:///{export}" if export else "",
    )
    languages: tuple[Language, ...] = ("en", "zh") if language == "both" else (language,)
    return "\n---\n\n".join(document(material, Words(one)) for one in languages)


def new_path(folder: RunFolder, target: Path, format_: str) -> Path:
    """Where the next report goes, under a name that is not taken; an Optuna study replaces the one before it."""
    if format_ == "optuna":
        # A folder that runs share has a study for each.
        return target / ("study.db" if target.is_relative_to(folder.path) else f"{folder.name}.db")
    stem, number = f"agent_run_report_{time.strftime('%Y-%m-%d_%H-%M-%S')}", 1
    path = target / f"{stem}.{format_}"
    while path.exists():
        number += 1
        path = target / f"{stem}-{number}.{format_}"
    return path
