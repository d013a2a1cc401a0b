"""What the `hpo` scenario tunes: a task knows its parameters, its commands and its score; the scenario the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ftagent.core.types import Candidate, Direction, Estimate, Files, Parameter, Score, Split, Stage

FIRST_SEED = "seed0"
"""Group of what the loop and the sealed test measure; a training that is repeated has `seed1`, `seed2` …"""
PREDICTIONS = "predictions.jsonl"
"""Rows with `id` GROUP/ITEM; what else is in a row is between a task's commands and its `score`."""


@dataclass(frozen=True)
class Described:
    """What a task tells in the brief; see the fields of `Brief`."""

    goal: str
    data: str
    file_contract: str
    details: str = ""
    required_files: tuple[str, ...] = ()
    reserved_files: tuple[str, ...] = ()


class Task(Protocol):
    """Made with the user's defaults already in `space`. It raises RequestError when it is made, not later."""

    name: str
    metric: str
    direction: Direction
    model_folder: str
    live_metric: str
    """Its key in the rows of metrics.jsonl, which have `step`; "" where a training logs none. Same direction."""
    seed: int
    """Of the first training; repeated ones have the numbers after it."""
    space: tuple[Parameter, ...]
    confirm_seeds: int
    """Repeated trainings where the user does not say how many."""
    tests_seeds: bool
    """Whether the sealed test is measured with the repeated trainings too: where a training may be the unit."""

    def describe(self) -> Described: ...

    def render(self, params: Mapping[str, Any]) -> Files:
        """The files of an experiment; the defaults of `space` where `params` is silent."""
        ...

    def train(self, candidate: Candidate, group: str, seed: int, folder: str) -> list[Stage]:
        """Commands that train with `seed` and leave the model in workspace folder `folder`.

        They may leave `predictions.jsonl` of the validation items too, with ids `group`/ITEM.
        """
        ...

    def predict(self, candidate: Candidate, split: Split, group: str, seed: int, folder: str) -> list[Stage]:
        """Commands after `train` that leave `predictions.jsonl` with ids `group`/ITEM for the items of `split`.

        [] where `train` leaves those of the validation items already. `split` is never `confirm`.
        """
        ...

    def score(self, predictions: Path, split: Split, groups: Sequence[str]) -> Score:
        """With the answers, in our process; ids of outcomes are GROUP/ITEM. `predictions` may be the workspace, where
        no file was left. For `confirm` the items are those of `validation`. Raises ScoreUnavailable."""
        ...

    def inspect(self, stage: Stage, workspace: Path) -> None:
        """Look at what a finished stage left; in a repeated training its name ends in `_seedN`.

        Raises StageRefused or StoppedEarly.
        """
        ...

    def estimate(self) -> Estimate: ...
