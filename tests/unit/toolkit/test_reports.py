"""Curves that are drawn elsewhere, file.log, and what is kept of a config."""

from __future__ import annotations

import signal
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.config import TrainConfig, load_config

from .training import config, metrics, run, signalled_after

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Curves of the event files as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events: Any = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {item.step: item.value for item in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_what_metrics_has(tiny: Path, tmp_path: Path) -> None:
    run(config(tiny, tmp_path, report_to="tensorboard", validation_share=0.25, validation_steps=2))
    curves, lines = scalars(tmp_path / "out/tensorboard"), metrics(tmp_path / "out")
    for name in ("loss", "learning_rate", "validation_loss"):
        expected = {line["step"]: line[name] for line in lines if name in line}
        assert curves[f"train/{name}"] == pytest.approx(expected, rel=1e-5)


def test_tensorboard_draws_steps_that_are_taken_again_once(tiny: Path, tmp_path: Path) -> None:
    wanted = config(tiny, tmp_path, report_to="tensorboard", epochs=20, checkpoint_steps=4)
    signalled_after(wanted, 6, tmp_path, signal.SIGKILL)
    run(wanted)
    assert sorted(scalars(tmp_path / "out/tensorboard")["train/loss"]) == list(range(1, 61))


def test_a_report_that_cannot_be_opened_is_one_line(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftagent.toolkit.errors import ToolkitError

    broken = types.ModuleType("wandb")
    broken.__spec__ = types.SimpleNamespace(name="wandb")  # type: ignore[assignment]

    def init(**values: Any) -> None:
        raise RuntimeError("api_key not configured (no-tty).\nCall wandb.login")

    monkeypatch.setattr(broken, "init", init, raising=False)
    monkeypatch.setitem(sys.modules, "wandb", broken)
    with pytest.raises(ToolkitError) as error:
        run(config(tiny, tmp_path, report_to="wandb"))
    assert str(error.value) == "report_to: wandb: api_key not configured (no-tty). Call wandb.login"


def test_the_log_file_tells_the_story(tiny: Path, tmp_path: Path) -> None:
    run(config(tiny, tmp_path, epochs=1))
    lines = [line.split(None, 3) for line in (tmp_path / "out/file.log").read_text().splitlines()]
    assert [line[2] for line in lines] == ["INFO", "DEBUG", "DEBUG", "DEBUG", "INFO"]
    assert lines[0][3].startswith("3 steps over ")
    assert lines[1][3].startswith("step 1: loss ")
    assert lines[-1][3] == f"saved {tmp_path / 'out'}"


def test_the_config_in_effect_trains_the_same(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "train_args").mkdir()
    (tmp_path / "train_args/mine.yaml").write_text("rank: 3\nepochs: 1\n")
    text = f"model_path: {tiny}\ndataset_path: {tmp_path / 'data.jsonl'}\nsave_model_path: {tmp_path / 'out'}\n"
    (tmp_path / "config.yaml").write_text(text + "model_name: mine\n")
    config(tiny, tmp_path)  # writes the data
    wanted = load_config(tmp_path / "config.yaml", TrainConfig, ["batch_size=2"])
    run(wanted)
    again = load_config(tmp_path / "out/train.yaml", TrainConfig)
    assert (again.rank, again.epochs, again.batch_size) == (3, 1, 2)
    assert run(again) == [{"event": "already_complete", "output": str(tmp_path / "out")}]
