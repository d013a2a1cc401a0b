"""Curves of a training in TensorBoard, Weights & Biases, MLflow or Trackio, drawn while it runs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any, Protocol

from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.errors import ToolkitError

PROJECT = "ftagent"
TENSORBOARD = "tensorboard"
"""Folder in save_model_path."""


class Report(Protocol):
    """Where a training's lines go."""

    def line(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""

    def close(self) -> None:
        """The training is over, however it ended."""


def check_report(config: TrainConfig) -> None:
    """Raises ToolkitError where the package for `report_to` is missing, with the command that installs it."""
    name = config.report_to
    if name != "none" and importlib.util.find_spec(name) is None:
        raise ToolkitError(f"report_to: {name} needs the package {name}; run `pip install 'ftagent[{name}]'`")


def open_report(config: TrainConfig, first_step: int) -> Report | None:
    """The report that `config` asks for; None for `none`. `first_step`: the next one to be taken, from 1.

    Raises ToolkitError, one line, where it cannot be opened.
    """
    check_report(config)
    kinds = {"tensorboard": _TensorBoard, "wandb": _Wandb, "mlflow": _Mlflow, "trackio": _Trackio}
    kind: Any = kinds.get(config.report_to)
    try:
        report: Report | None = None if kind is None else kind(config, first_step)
    except Exception as error:  # each package raises classes of its own, for no network or no login
        raise ToolkitError(f"report_to: {config.report_to}: {' '.join(str(error).split())[:300]}") from error
    return report


class _TensorBoard:
    """Event files under save_model_path; points of steps that are taken again are dropped."""

    def __init__(self, config: TrainConfig, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        writer: Any = SummaryWriter
        folder = str(config.save_model_path / TENSORBOARD)
        self._writer = writer(folder, purge_step=first_step if first_step > 1 else None, flush_secs=5)
        self._writer.add_text("config", f"```\n{config.model_dump_json(indent=1)}\n```", first_step - 1)

    def line(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A run of the project `ftagent`; WANDB_MODE=offline keeps it in save_model_path."""

    def __init__(self, config: TrainConfig, first_step: int) -> None:
        wandb: Any = importlib.import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=config.save_model_path.name,
            dir=str(config.save_model_path), config=config.model_dump(mode="json"), resume="allow",
        )  # fmt: skip

    def line(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    """A run of the experiment `ftagent` on the server of MLFLOW_TRACKING_URI."""

    def __init__(self, config: TrainConfig, first_step: int) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        self._mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        self._mlflow.start_run(run_name=config.save_model_path.name)
        self._mlflow.log_params({key: str(value)[:500] for key, value in config.model_dump(mode="json").items()})

    def line(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class _Trackio:
    """A run of the project `ftagent` in the local store of Trackio."""

    def __init__(self, config: TrainConfig, first_step: int) -> None:
        self._trackio: Any = importlib.import_module("trackio")
        self._trackio.init(
            project=PROJECT, name=config.save_model_path.name, config=config.model_dump(mode="json"), resume="allow"
        )

    def line(self, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        self._trackio.finish()
