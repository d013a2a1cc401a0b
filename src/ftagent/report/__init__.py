"""What a run leaves for people: markdown and HTML reports, figures, the model card.

`write_report` and `write_card` are what the application calls at the end of a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ftagent.core.run_folder import RunFolder
    from ftagent.core.state import State
    from ftagent.core.types import Stage
    from ftagent.report.tuning.writing import ReportLanguage


def write_report(folder: RunFolder, state: State) -> list[Path]:
    """Write report.md, report.html and figures/ of a run; returns the paths. Raises StorageFull."""
    from ftagent.report.writing import write_report as write

    return write(folder, state)


def write_card(folder: RunFolder, state: State, stages: Sequence[Stage] = ()) -> list[Path]:
    """Write the model card and reproduce.sh into best/, where the run selected an experiment.

    `stages`: the full stages of the selected experiment, as the scenario gives them. Raises StorageFull.
    """
    from ftagent.report.card import write_card as write

    return write(folder, state, stages)


def write_tuning_report(
    folder: RunFolder, state: State, language: ReportLanguage, reports_dir: str | None = None
) -> Path:
    """Write the report on a tuned configuration, its pictures and the Optuna study; returns the report.

    Raises RequestError for a run without a plan, StorageFull, OSError.
    """
    from ftagent.report.tuning.writing import write_tuning_report as write

    return write(folder, state, language, reports_dir).report
