"""The trials of a run as an Optuna study, in memory or as the SQLite file that optuna-dashboard opens."""

from __future__ import annotations

import datetime
import json
import sqlite3
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftagent.core import events
from ftagent.core.files import temporary_name
from ftagent.core.journal import read_records
from ftagent.core.run_folder import RunFolder
from ftagent.core.state import effective
from ftagent.core.types import Parameter
from ftagent.report.tuning.study import Round, Study

if TYPE_CHECKING:
    import optuna

    Distribution = optuna.distributions.BaseDistribution
    FrozenTrial = optuna.trial.FrozenTrial

Times = Mapping[int | None, tuple[float, float]]
"""When a trial began and ended, in seconds since the epoch, by loop."""


def write_study(folder: RunFolder, study: Study, path: Path) -> Path:
    """Write `path`, replacing what is there in one step. Raises OSError."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    temporary = path.with_name(temporary_name())
    try:
        connect = {"creator": lambda: _quick(temporary)}
        storage = optuna.storages.RDBStorage(f"sqlite:///{temporary.absolute()}", engine_kwargs=connect)
        made = optuna.create_study(storage=storage, study_name=study.name, directions=list(study.directions()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            made.set_metric_names([study.metric, *(objective.name for objective in study.tuning.plan.objectives)])
        made.set_user_attr("run", str(folder.path))
        made.set_user_attr("mode", study.tuning.plan.mode)
        if (selected := study.state.selected) is not None:
            made.set_user_attr("selected", "default" if selected.loop is None else f"loop {selected.loop}")
            made.set_user_attr("verdict", f"{selected.verdict}: {selected.reason}")
        made.add_trials(frozen_trials(study, several=True, times=_times(folder)))
        storage.remove_session()
        storage.engine.dispose()
        temporary.replace(path)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise OSError(f"{path}: cannot be written ({str(error).splitlines()[0]})") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _quick(path: Path) -> sqlite3.Connection:
    """Without a wait for the disk at every change: the file is new, and can be made again from the journal."""
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA journal_mode=MEMORY")
    return connection


def frozen_trials(study: Study, several: bool, times: Times | None = None) -> list[FrozenTrial]:
    """One trial for each round, the default first. `several`: with all objectives, else with the metric alone."""
    return [_frozen(study, number, one, several, times or {}) for number, one in enumerate(study.rounds)]


def _frozen(study: Study, number: int, one: Round, several: bool, times: Times) -> FrozenTrial:
    import optuna

    states = optuna.trial.TrialState
    values = _values(study, one, several)
    state = {"scored": states.COMPLETE, "stopped": states.PRUNED, "failed": states.FAIL, "open": states.RUNNING}[
        one.end
    ]
    if state == states.COMPLETE and values is None:
        state = states.FAIL  # a study of several objectives has no trial of which one is unknown
    began, ended = (datetime.datetime.fromtimestamp(at) for at in times.get(one.loop, (0.0, 0.0)))
    fitting = {p.name: d for p in study.tuning.space if (d := _distribution(p)) and _fits(d, one.params.get(p.name))}
    parameters = {name: _category(one.params[name]) for name in fitting}
    single = values if values is not None and len(values) == 1 else None
    return optuna.trial.FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=None,
        values=values if single is None else single,
        datetime_start=began,
        datetime_complete=None if state == states.RUNNING else ended,
        params=parameters,
        distributions=fitting,
        user_attrs=_attributes(study, one, set(fitting)),
        system_attrs={},
        intermediate_values=dict(one.curve),
    )


def _values(study: Study, one: Round, several: bool) -> list[float] | None:
    if one.score is None:
        return None
    if not several or not study.tuning.plan.objectives:
        return [one.score.value]
    point = study.objectives(one)
    return None if point is None else list(point)


def _attributes(study: Study, one: Round, fitting: set[str]) -> dict[str, Any]:
    """What a trial of Optuna has no other place for."""
    found: dict[str, Any] = {"loop": "default" if one.loop is None else one.loop}
    if one.score is not None:
        found |= {"stderr": one.score.stderr, "ci95": list(one.score.ci95), "items": one.score.n}
    told = {"title": one.title, "reason": one.reason, "advice": one.advice, "decision": one.decision,
            "failure": one.failure, "notes": list(one.notes), **one.measured}  # fmt: skip
    found |= {name: value for name, value in told.items() if value or value == 0}
    if exceeded := study.exceeded(one):
        found["exceeds"] = exceeded
    fixed = {name: value for name, value in one.params.items() if name not in fitting}
    return {**found, "fixed": fixed} if fixed else found


def _distribution(parameter: Parameter) -> Distribution | None:
    """None for what is not tuned, or has no range."""
    from optuna import distributions

    if not parameter.tunable:
        return None
    if parameter.kind == "choice":
        return distributions.CategoricalDistribution([_category(choice) for choice in parameter.choices])
    if parameter.low is None or parameter.high is None:
        return None
    if parameter.kind == "int":
        return distributions.IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _category(value: Any) -> Any:
    """Optuna keeps plain values only; a list is a category by its JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def _fits(distribution: Distribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(_category(value)))
    except (ValueError, TypeError):
        return False


def _times(folder: RunFolder) -> Times:
    """From the journal: a trial lasts from its first event to its last before the finish."""
    found: dict[int | None, tuple[float, float]] = {}
    for record in effective(read_records(folder.journal)):
        match record.event:
            case events.Created():
                found[None] = (record.at, record.at)
            case events.Scored(loop=None, split="validation"):
                found[None] = (found[None][0], record.at)
            case events.LoopStarted(loop=loop) | events.Proposed(loop=loop):
                found.setdefault(loop, (record.at, record.at))
            case events.Ran(loop=loop) | events.Reflected(loop=loop):
                found[loop] = (found[loop][0], record.at)
    return found
