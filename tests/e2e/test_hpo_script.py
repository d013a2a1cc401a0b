"""Any script through the command line: the guide's example, early stops, memory, and what is wrong with a script."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import FTAGENT  # type: ignore[attr-defined]

Ftagent = Callable[..., list[dict[str, Any]]]
GUIDE = Path(__file__).parents[2] / "docs/guides/hpo-scripts.md"
RUN = ("run", "--scenario", "hpo", "--script", "train.py", "--space", "space.yaml", "--agent", "search", "--name", "x")


def shown(ftagent: Ftagent) -> list[dict[str, Any]]:
    (document,) = ftagent("show", "x")
    experiments: list[dict[str, Any]] = document["experiments"]
    return experiments


def write(folder: Path, script: str, space: str) -> None:
    (folder / "train.py").write_text(script)
    (folder / "space.yaml").write_text(space)


@pytest.mark.timeout(600)
def test_the_script_of_the_guide_is_tuned(tmp_path: Path, ftagent: Ftagent) -> None:
    pytest.importorskip("sklearn")
    for name, text in re.findall(r'```\w+ title="(.+?)"\n(.*?)```', GUIDE.read_text(), re.DOTALL):
        (tmp_path / name).write_text(text)
    finished = ftagent(*RUN, "-o", "MODE=joint", "--loop-n", "3")[-1]
    assert finished["status"] == "completed"
    assert finished["best"]["verdict"] == "improved"
    assert finished["best"]["test"]["value"] > finished["baseline"]["test"]["value"] + 0.05
    assert finished["baseline"]["validation"]["n"] == 700
    assert (tmp_path / "log/x/best/weights.npy").stat().st_size > 5000
    # What the sealed test is scored by stays out of what steers the search.
    assert "test_accuracy" not in (tmp_path / "log/x/Loop_0/running/validation.json").read_text()
    assert ftagent("replay", "x")[-1]["equal"]


CURVE = """
import json, os
x = float(os.environ["X"])
with open("metrics.jsonl", "w") as file:
    for step in range(1, 9):
        print(json.dumps({"step": step, "loss": (x - 0.3) ** 2 + 1 / step}), file=file, flush=True)
json.dump({"score": 1 - (x - 0.3) ** 2}, open("metrics.json", "w"))
"""
CURVE_SPACE = """\
metric: {name: score, live: {name: loss, direction: minimize}}
pass: environment
parameters:
  x: {type: float, range: [0, 3], default: 1}
"""


@pytest.mark.timeout(300)
def test_trials_that_cannot_win_are_stopped_by_a_rule_that_is_told(tmp_path: Path, ftagent: Ftagent) -> None:
    write(tmp_path, CURVE, CURVE_SPACE)
    options = ("-o", "MODE=joint", "-o", "SAMPLER=random", "-o", "EARLY_STOPPING=true")
    assert ftagent(*RUN, *options, "--loop-n", "12")[-1]["status"] == "completed"
    experiments = shown(ftagent)
    stopped = [e for e in experiments if "stopped early: loss was" in e["feedback"]["reason"]]
    assert 0 < len(stopped) < len(experiments)
    assert re.search(r"at step \d, at most [\d.]+ was needed to go on \(.+\)", stopped[0]["feedback"]["reason"])
    loop = tmp_path / f"log/x/Loop_{stopped[0]['loop']}"
    told = json.loads((loop / "coding/attempt_0/stopping.json").read_text())
    rows = [json.loads(line) for line in (loop / "running/metrics.jsonl").read_text().splitlines()]
    worse = [
        row for row in rows for rung in told["rungs"] if row["step"] == rung["step"] and -row["loss"] < rung["needs"]
    ]
    assert (told["metric"], told["direction"]) == ("-loss", "maximize")
    assert worse


SPACE = """\
metric: {name: accuracy}
parameters:
  mode: {type: choice, choices: [good, better, silent, nan, text, other, crash], default: good}
"""
MODES = """
import json, math, os, sys
mode = os.environ["MODE"]
print("accuracy 0.9")
written = {"good": 0.5, "better": 0.6, "nan": math.nan, "text": "0.7"}
if mode in written:
    json.dump({"accuracy": written[mode]}, open("metrics.json", "w"))
elif mode == "other":
    json.dump({"acc": 0.9}, open("metrics.json", "w"))
elif mode == "crash":
    raise ValueError("no such mode")
"""
REASONS = {
    "silent": "no score: train.py ended well and wrote neither metrics.json nor metrics.jsonl with 'accuracy'",
    "nan": "no score: metrics.json: accuracy is nan, which is no finite number",
    "text": 'no score: metrics.json: accuracy is "0.7", which is no number',
    "other": "no score: train.py wrote no 'accuracy': metrics.json has acc",
    "crash": "train: exit code 1: ValueError: no such mode",
}


@pytest.mark.timeout(300)
def test_trials_without_a_score_are_marked_and_the_run_goes_on(tmp_path: Path, ftagent: Ftagent) -> None:
    write(tmp_path, MODES, SPACE + "pass: environment\n")
    finished = ftagent(*RUN, "--loop-n", "6", "-o", "MODE=joint", "-o", "SAMPLER=random")[-1]
    assert (finished["status"], finished["loops"]) == ("completed", 6)
    reasons = {e["hypothesis"]["params"].get("mode"): e["feedback"]["reason"] for e in shown(ftagent)}
    failed = {mode: reason for mode, reason in reasons.items() if mode in REASONS}
    assert len(failed) >= 2
    assert failed == {mode: REASONS[mode] for mode in failed}


@pytest.mark.timeout(300)
def test_a_metric_that_one_seed_lacks_marks_the_trial(tmp_path: Path, ftagent: Ftagent) -> None:
    script = """
    import json, sys
    given = json.load(open("config.json"))
    if given["mode"] == "good" or given["seed"] != 1:
        json.dump({"accuracy": 0.5 + given["seed"] / 100}, open("metrics.jsonl", "w"))
    """.replace("\n    ", "\n")
    space = SPACE.replace("[good, better, silent, nan, text, other, crash]", "[good, bad]")
    write(tmp_path, script, space + "pass: json\nseed: {name: seed, repeats: 3}\n")
    finished = ftagent(*RUN, "--loop-n", "1")[-1]
    assert (finished["status"], finished["baseline"]["validation"]["n"]) == ("completed", 3)
    (experiment,) = shown(ftagent)
    assert experiment["feedback"]["reason"].startswith(
        "no score: accuracy is missing in 1 of 3 seeds: seed 1: train.py ended well and wrote neither"
    )


HUNGRY = """
import argparse, json
parser = argparse.ArgumentParser()
parser.add_argument("--batch_size", type=int)
parser.add_argument("--lr", type=float)
args = parser.parse_args()
block = b"x" * (args.batch_size * 4 * 2**20)
json.dump({"loss": (args.lr - 0.1) ** 2}, open("metrics.json", "w"))
"""
HUNGRY_SPACE = """\
metric: {name: loss, direction: minimize}
memory_mb: 300
parameters:
  lr: {type: float, range: [1e-3, 1], scale: log, default: 0.01}
  batch_size: {type: int, range: [8, 256], scale: log, default: 128, memory: true, tunable: false}
"""


@pytest.mark.timeout(300)
def test_memory_that_runs_out_lowers_the_batch_and_is_told(tmp_path: Path, ftagent: Ftagent) -> None:
    write(tmp_path, HUNGRY, HUNGRY_SPACE)
    assert ftagent(*RUN, "--loop-n", "1")[-1]["status"] == "completed"
    (experiment,) = shown(ftagent)
    assert [stage["end"] for stage in experiment["stages"]] == ["ok"] * len(experiment["stages"])
    told = "out of memory with batch_size 128: measured with batch_size 64"
    assert told in experiment["feedback"]["observations"]
    assert (
        "trial: out of memory with batch_size 128; tried again with batch_size 64"
        in (tmp_path / "log/x/Loop_0/running/train.log").read_text()
    )
    assert told in (tmp_path / "log/x/report.md").read_text().replace("\\_", "_")
    score = json.loads((tmp_path / "log/x/Loop_0/running/validation.json").read_text())
    assert score["details"]["batch_size"] == 64


@pytest.mark.timeout(300)
def test_memory_that_no_parameter_saves_ends_a_trial(tmp_path: Path, ftagent: Ftagent) -> None:
    space = HUNGRY_SPACE.replace(", memory: true, tunable: false", "").replace("default: 128", "default: 8")
    write(tmp_path, HUNGRY, space.replace("memory_mb: 300", "memory_mb: 80"))
    assert ftagent(*RUN, "--loop-n", "2", "-o", "PRIORITY_KEYS=batch_size")[-1]["status"] == "completed"
    failed = [e["feedback"]["reason"] for e in shown(ftagent) if not e["validation"]]
    assert failed
    assert all("out of memory" in reason for reason in failed)


@pytest.mark.timeout(300)
def test_a_resumed_run_reads_the_script_that_it_began_with(tmp_path: Path, ftagent: Ftagent) -> None:
    script = "import json, os\nopen(os.environ['FTAGENT_INPUT_DATA']).read()\n" + MODES
    space = SPACE.replace("silent, nan, text, other, crash", "good again")
    write(tmp_path, script, space + "pass: environment\ninputs: {DATA: data.txt}\nfiles: [more.txt]\n")
    (tmp_path / "data.txt").write_text("x")
    (tmp_path / "more.txt").write_text("y")
    ftagent(*RUN, "--loop-n", "1")
    write(tmp_path, "raise SystemExit(3)", "nonsense")
    (tmp_path / "more.txt").unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run([*FTAGENT, "resume", str(tmp_path / "log/x"), "--loop-n", "2"], cwd=elsewhere,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the sealed test has no score: space.yaml names no metric.test, so nothing is sealed" in done.stderr
    first = [(e["stages"][0]["name"], e["stages"][0]["end"]) for e in shown(ftagent)]
    assert first == [("train", "ok"), ("train", "ok")]


@pytest.mark.parametrize(
    ("script", "space", "words"),
    [
        (MODES, SPACE.replace("metric:", "metrc:"), "space.yaml:1: metrc: unknown key; did you mean metric?"),
        (MODES, "metric: accuracy\nparameters: {}\n", "space.yaml:2: parameters: nothing to tune; give at least one"),
        (
            MODES,
            SPACE.replace("default: good", "default: god"),
            "parameters.mode.default: 'god' is none of its choices",
        ),
        ("print(", SPACE, "train.py:1: not Python: '(' was never closed"),
        (MODES, SPACE + "inputs: {DATA: nowhere}\n", "nowhere: no such file or folder"),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_one_line(tmp_path: Path, script: str, space: str, words: str) -> None:
    write(tmp_path, script, space)
    done = subprocess.run([*FTAGENT, *RUN], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert words in line
    assert not (tmp_path / "log").exists()


@pytest.mark.timeout(300)
def test_a_default_configuration_without_a_score_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    write(tmp_path, MODES, SPACE.replace("default: good", "default: nan") + "pass: environment\n")
    done = subprocess.run([*FTAGENT, *RUN], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert f"the baseline could not be measured: {REASONS['nan']}" in done.stderr.splitlines()[-1]
