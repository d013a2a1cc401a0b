"""Any script as a task: its files, its commands, and what it wrote as a score."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import RequestError, ScoreUnavailable, StoppedEarly
from ftagent.core.types import Candidate, Score, Split, Stage
from ftagent_hpo.config import packaged_text, read_config
from ftagent_hpo.scenario import GATHER
from ftagent_hpo.script import CONFIG, ScriptTask
from ftagent_hpo.script_files import read_script_documents
from ftagent_hpo.task import FIRST_SEED

SCRIPT = "import argparse\nparser.add_argument('--batch_size')\n"
SPACE = """\
metric: {name: accuracy, test: test_accuracy}
seed: --seed
parameters:
  learning_rate: {type: float, range: [1e-5, 1e-1], scale: log, default: 1e-3}
  batch_size: {type: int, range: [4, 128], default: 32, memory: true}
  out-dir: folder
"""


def task(folder: Path, space: str = SPACE, script: str = SCRIPT, **options: str) -> ScriptTask:
    (folder / "train.py").write_text(script)
    (folder / "space.yaml").write_text(space)
    names = str(folder / "train.py"), str(folder / "space.yaml")
    documents = read_script_documents(*names)
    for name in names:
        Path(name).unlink()  # whatever happens to the files later, the run was made from these
    context = ScenarioContext(files_path=folder, seed=7, script=names[0], space=names[1], documents=documents)
    return ScriptTask(read_config(packaged_text(), "hpo.yaml", options), context)


def trial(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stage.files["trial.json"])
    return found


def train(made: ScriptTask, params: dict[str, Any] | None = None) -> dict[str, Any]:
    (stage,) = made.train(Candidate(0, made.render(params or {})), FIRST_SEED, made.seed, made.model_folder)
    return trial(stage)


def test_a_trial_has_parameters_seed_and_flags(tmp_path: Path) -> None:
    found = train(task(tmp_path), {"learning_rate": 0.01})
    assert found["parameters"] == {"learning_rate": 0.01, "batch_size": 32, "out-dir": "folder", "--seed": 7}
    # As the script writes it, else with dashes, as argparse, click and typer have it.
    assert found["names"] == {"learning_rate": "--learning-rate", "batch_size": "--batch_size", "out-dir": "--out-dir",
                              "--seed": "--seed"}  # fmt: skip
    assert found["memory"] == {"batch_size": [4.0]}
    assert found["command"] == ["python", "train.py"]


@pytest.mark.parametrize(
    ("passing", "names"),
    [("json", ["learning_rate", "batch_size", "out-dir", "SEED"]),
     ("environment", ["LEARNING_RATE", "BATCH_SIZE", "OUT_DIR", "SEED"])],
)  # fmt: skip
def test_names_follow_the_way_they_are_passed(tmp_path: Path, passing: str, names: list[str]) -> None:
    found = train(task(tmp_path, SPACE.replace("seed: --seed", f"seed: SEED\npass: {passing}")))
    assert found["passing"] == passing
    assert list(found["names"].values()) == names


def test_repeated_trainings_have_seeds_and_folders_of_their_own(tmp_path: Path) -> None:
    made = task(tmp_path, SPACE.replace("--seed", "{name: --seed, repeats: 3}"))
    candidate = Candidate(0, made.render({}))
    first = [trial(s) for s in made.train(candidate, FIRST_SEED, 7, "model")]
    again = [trial(s) for s in made.train(candidate, "seed1", 8, "confirm/seed1")]
    assert [one["parameters"]["--seed"] for one in first + again] == [7, 8, 9, 10, 11, 12]
    assert len({one["folder"] for one in first + again}) == 6
    assert first[0]["folder"] == "."
    # The others would only repeat what the first has passed, and with another seed fail at random.
    assert [one["stopping"] for one in first + again] == ["stopping.json", *[""] * 5]


def test_only_what_is_tunable_follows_an_experiment(tmp_path: Path) -> None:
    made = task(tmp_path)
    files = {CONFIG: json.dumps({"learning_rate": 0.01, "out-dir": "folder"})}
    (stage,) = made.train(Candidate(0, files), FIRST_SEED, 7, "model")
    assert trial(stage)["parameters"]["out-dir"] == "folder"
    for wrong, words in (
        ({"learning_rate": 9}, "learning_rate: 9 is outside its range 1e-05 to 0.1"),
        ({"learningrate": 0.1}, "learningrate: no such parameter"),
        ({"out-dir": "/etc"}, "out-dir: '/etc' is none of its choices: folder"),
        ([], "must be an object"),
    ):
        (stage,) = made.train(Candidate(0, {CONFIG: json.dumps(wrong)}), FIRST_SEED, 7, "model")
        assert words in trial(stage)["refused"]


def test_defaults_of_the_command_line_win(tmp_path: Path) -> None:
    made = task(tmp_path, learning_rate="3e-4", BATCH_SIZE="64")
    assert train(made)["parameters"]["learning_rate"] == 3e-4
    assert json.loads(made.render({})[CONFIG])["batch_size"] == 64
    with pytest.raises(RequestError, match=r"-o learning_rate=3: 3 is outside its range"):
        task(tmp_path, learning_rate="3")
    with pytest.raises(RequestError, match="did you mean batch_size"):
        task(tmp_path, batchsize="3")


@pytest.mark.parametrize(
    ("script", "space", "words"),
    [
        ("def (", SPACE, "train.py:1: not Python: "),
        (SCRIPT, SPACE + "files: [none.py]\n", r"space.yaml: files: none.py: cannot be read: No such file"),
        (SCRIPT, SPACE + "files: [../train.py]\n", r"contains `..`"),
        (SCRIPT, SPACE + "files: [train.py]\n", "is the script itself"),
        (SCRIPT, SPACE + "inputs: {DATA: ./none}\n", r"inputs.DATA: .*none: no such file or folder"),
    ],
)
def test_a_script_that_cannot_run_is_refused_at_once(tmp_path: Path, script: str, space: str, words: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "train.py").write_text("")
    with pytest.raises(RequestError, match=words) as caught:
        task(tmp_path / "sub" if "../" in space else tmp_path, space, script)
    assert "\n" not in str(caught.value)


def test_other_names_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="needs --space FILE"):
        read_script_documents("train.py", None)
    with pytest.raises(RequestError, match=r"^--script none.py: cannot be read: No such file"):
        read_script_documents("none.py", "space.yaml")
    (tmp_path / "train.rb").write_text("")
    (tmp_path / "space.yaml").write_text(SPACE)
    context = ScenarioContext(tmp_path, script=str(tmp_path / "train.rb"), space=str(tmp_path / "space.yaml"))
    with pytest.raises(RequestError, match="must be a Python script"):
        ScriptTask(read_config(packaged_text(), "hpo.yaml", {}), context)


def measure(made: ScriptTask, folder: Path, written: dict[str, Any], split: Split = "validation") -> Score:
    """The score after a training that wrote `written`: file → text or object."""
    for name, value in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    candidate = Candidate(0, made.render({}))
    for stage in made.predict(candidate, split, FIRST_SEED, made.seed, made.model_folder):
        for name, text in stage.files.items():
            (folder / name).write_text(text)
        subprocess.run([sys.executable, *stage.command[1:]], cwd=folder, check=True)
    return made.score(folder / "predictions.jsonl", split, [FIRST_SEED])


def test_a_score_comes_from_metrics_json_and_its_further_metrics(tmp_path: Path) -> None:
    made = task(tmp_path, SPACE + "output: model\n")
    score = measure(made, tmp_path, {
        "metrics.json": {"accuracy": 0.75, "f1": 0.5, "test_accuracy": 0.6, "note": "x", "bad": float("inf")},
        "metrics.jsonl": '{"step": 1, "accuracy": 0.1, "loss": 3}\n{"step": 2, "loss": 2}\n{"st',
        "model/weights": "x" * 2**20,
    })  # fmt: skip
    assert (score.value, score.n, score.outcomes) == (0.75, 1, {"seed0/run0": 0.75})
    assert score.details == {"f1": 0.5, "loss": 2.0, "size_mb": 1.0}
    test = measure(made, tmp_path, {}, "test")
    assert (test.metric, test.value, test.details) == ("accuracy", 0.6, {})


def test_the_last_row_that_has_the_metric_counts(tmp_path: Path) -> None:
    rows = '{"step": 1, "accuracy": 0.1}\n{"step": 2, "accuracy": 0.3}\n{"step": 3, "loss": 1}\n'
    assert measure(task(tmp_path), tmp_path, {"model/metrics.jsonl": rows}).value == 0.3


def test_outcomes_of_items_make_the_score(tmp_path: Path) -> None:
    found = {"accuracy": 0.667, "outcomes": {"a": 1, "b": 0, "c": True}, "test_accuracy": 0.5,
             "test_outcomes": {"d": 0.5}}  # fmt: skip
    score = measure(task(tmp_path), tmp_path, {"metrics.json": found})
    assert score.outcomes == {"seed0/a": 1.0, "seed0/b": 0.0, "seed0/c": 1.0}
    assert score.value == pytest.approx(2 / 3)
    assert measure(task(tmp_path), tmp_path, {}, "test").outcomes == {"seed0/d": 0.5}


def test_repeated_trainings_are_averaged_per_item(tmp_path: Path) -> None:
    made = task(tmp_path, SPACE.replace("--seed", "{name: --seed, repeats: 2}"))
    written = {
        "metrics.json": {"accuracy": 0.5, "outcomes": {"a": 1, "b": 0}, "f1": 1},
        "repeated/1/metrics.json": {"accuracy": 1, "outcomes": {"a": 1, "b": 1}, "f1": 2},
    }
    score = measure(made, tmp_path, written)
    assert score.outcomes == {"seed0/a": 1.0, "seed0/b": 0.5}
    assert (score.samples, score.details["f1"]) == (2, 1.5)
    without = {name: {"accuracy": value["accuracy"]} for name, value in written.items()}
    assert measure(made, tmp_path, without).outcomes == {"seed0/run0": 0.5, "seed0/run1": 1.0}
    for second, words in (
        (
            '{"loss": 1}',
            "accuracy is missing in 1 of 2 seeds: seed 1: train.py wrote no 'accuracy': metrics.json has loss",
        ),
        ('{"accuracy": NaN}', "accuracy is missing in 1 of 2 seeds: seed 1: metrics.json: accuracy is nan"),
        ({"accuracy": 1, "outcomes": {"a": 1, "c": 1}}, "outcomes of seed 1: not the items of the first seed"),
        ({"accuracy": 1}, "outcomes of seed 1: must be an object"),
    ):
        with pytest.raises(ScoreUnavailable) as caught:
            measure(made, tmp_path, {**written, "repeated/1/metrics.json": second})
        assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({}, "train.py ended well and wrote neither metrics.json nor metrics.jsonl with 'accuracy'"),
        ({"metrics.json": "accuracy 0.8"}, "train.py wrote no 'accuracy': metrics.json has no number"),
        ({"metrics.json": {"acc": 0.8, "loss": 1}}, "train.py wrote no 'accuracy': metrics.json has acc, loss"),
        ({"metrics.json": '{"accuracy": NaN}'}, "metrics.json: accuracy is nan, which is no finite number"),
        ({"metrics.jsonl": '{"accuracy": 1e999}\n'}, "metrics.jsonl: accuracy is inf, which is no finite number"),
        ({"metrics.json": {"accuracy": "0.8"}}, 'metrics.json: accuracy is "0.8", which is no number'),
        ({"metrics.json": {"accuracy": None}}, "metrics.json: accuracy is null, which is no number"),
        ({"metrics.json": {"accuracy": 0.9, "outcomes": {"a": 1, "b": 0}}}, "outcomes: their mean is 0.5 and accuracy"),
        ({"metrics.json": {"accuracy": 0.9, "outcomes": [1, 0]}}, "outcomes: must be an object of item ids"),
        ({"metrics.json": {"accuracy": 0.9, "outcomes": {"a": "x"}}}, "outcomes: item 'a' is \"x\", which is no num"),
    ],
)  # fmt: skip
def test_a_metric_that_is_none_is_told_in_one_line(tmp_path: Path, written: dict[str, Any], words: str) -> None:
    with pytest.raises(ScoreUnavailable) as caught:
        measure(task(tmp_path), tmp_path, written)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_what_memory_lowered_is_part_of_the_score(tmp_path: Path) -> None:
    adjusted = {"batch_size": {"from": 32, "to": 8, "why": "out of memory"}, "junk": 3}
    score = measure(task(tmp_path), tmp_path, {"metrics.json": {"accuracy": 1}, "adjusted.json": adjusted})
    assert score.notes == ("out of memory with batch_size 32: measured with batch_size 8",)
    assert score.details["batch_size"] == score.adjusted["batch_size"] == 8


def test_a_trial_that_was_stopped_is_told_with_its_rule(tmp_path: Path) -> None:
    made = task(tmp_path)
    (stage,) = made.train(Candidate(0, made.render({})), FIRST_SEED, 7, "model")
    made.inspect(stage, tmp_path)
    stopped = {
        "step": 5,
        "value": 0.1,
        "needs": 0.5,
        "metric": "accuracy",
        "direction": "maximize",
        "rule": "half of 4",
    }
    (tmp_path / "stopped.json").write_text(json.dumps(stopped))
    with pytest.raises(StoppedEarly) as caught:
        made.inspect(stage, tmp_path)
    assert str(caught.value) == "accuracy was 0.1 at step 5, at least 0.5 was needed to go on (half of 4)"
    made.inspect(replace(stage, files={}, name="collect"), tmp_path / "..")


def test_a_script_without_seed_or_test_says_so(tmp_path: Path) -> None:
    space = SPACE.replace("seed: --seed\n", "").replace(", test: test_accuracy", "")
    made = task(tmp_path, space)
    candidate = Candidate(0, made.render({}))
    assert made.train(candidate, "seed1", 8, "confirm/seed1") == []
    assert made.predict(candidate, "test", FIRST_SEED, 7, "model") == []
    with pytest.raises(ScoreUnavailable, match="names no seed"):
        made.score(tmp_path, "confirm", ["seed1"])
    with pytest.raises(ScoreUnavailable, match=r"names no metric\.test"):
        made.score(tmp_path, "test", [FIRST_SEED])


def test_gathering_again_after_a_crash_counts_no_training_twice(tmp_path: Path) -> None:
    (tmp_path / "confirm").mkdir()
    (tmp_path / "confirm/seed1_test.jsonl").write_text('{"id": "seed1/run0", "value": 2}\n')
    (tmp_path / "predictions.jsonl").write_text('{"id": "seed0/run0", "value": 1}\n')
    for _ in range(2):
        subprocess.run([sys.executable, "-c", GATHER], cwd=tmp_path, check=True)
    rows = [json.loads(line)["id"] for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert rows == ["seed0/run0", "seed1/run0"]
