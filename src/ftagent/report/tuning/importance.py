"""How much of what the score varied by was due to each parameter: fANOVA (Hutter, Hoos, Leyton-Brown, ICML 2014)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field

from ftagent.report.tuning.optuna_study import frozen_trials
from ftagent.report.tuning.study import Study

FEWEST = 4


@dataclass(frozen=True)
class Importance:
    """`shares` of the variance by parameter, largest first; where there are none, `missing` says why."""

    shares: Mapping[str, float] = field(default_factory=dict)
    missing: str = ""
    """`package`, `few` or `flat`; see texts.py."""
    trials: int = 0


def importance(study: Study) -> Importance:
    """Of the parameters that were varied, from the trials that have a score. Deterministic."""
    scored = [one for one in study.rounds if one.score is not None]
    values = {one.score.value for one in scored if one.score is not None}
    varied = [name for name in study.names if len({repr(one.params.get(name)) for one in scored}) > 1]
    if importlib.util.find_spec("sklearn") is None:
        return Importance(missing="package", trials=len(scored))
    if len(scored) < FEWEST:
        return Importance(missing="few", trials=len(scored))
    if len(values) < 2 or not varied:
        return Importance(missing="flat", trials=len(scored))
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(direction=study.direction)
    for trial in frozen_trials(study, several=False):
        if trial.state == optuna.trial.TrialState.COMPLETE:
            made.add_trial(trial)
    known = set.intersection(*(set(trial.params) for trial in made.trials))
    if not (names := [name for name in varied if name in known]):
        return Importance(missing="flat", trials=len(scored))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=study.state.created.seed if study.state.created else 0)
    shares = optuna.importance.get_param_importances(made, evaluator=evaluator, params=names)
    return Importance(dict(sorted(shares.items(), key=lambda item: (-item[1], item[0]))), trials=len(scored))
