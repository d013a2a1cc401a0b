"""The wrapper of a trial: parameters in, early stopping, less where memory runs out, signals and exit codes."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from ftagent.core.types import Resources, Stage
from ftagent.environments.limits import discover
from ftagent.environments.local import LocalEnvironment, LocalOptions
from ftagent.toolkit import trial_child
from ftagent.toolkit.trial import Trial, lowered, run, words
from ftagent.toolkit.trial_rules import Watcher, read_rules

COMMAND = [sys.executable, "-P", "-m", "ftagent.toolkit.trial", "trial.json"]
ROWS = """
import json, sys, time
with open("metrics.jsonl", "w") as file:
    for step in range(1, 41):
        print(json.dumps({"step": step, "acc": step / 100, "loss": float("nan")}), file=file, flush=True)
        time.sleep(PAUSE)
open("finished", "w").close()
"""


def prepare(path: Path, script: str, stopping: dict[str, Any] | None = None, **trial: Any) -> None:
    (path / "train.py").write_text(textwrap.dedent(script))
    (path / "trial.json").write_text(json.dumps({"command": ["python", "train.py"], **trial}))
    if stopping is not None:
        (path / "stopping.json").write_text(json.dumps(stopping))


def execute(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def rules(metric: str, direction: str, *rungs: tuple[int, float], rule: str = "median") -> dict[str, Any]:
    steps = [{"step": step, "needs": needs} for step, needs in rungs]
    return {"metric": metric, "direction": direction, "rungs": steps, "rule": rule}


def test_only_the_standard_library_is_imported() -> None:
    code = (
        "import sys; import ftagent.toolkit.trial, ftagent.toolkit.trial_metrics;"
        "print([m for m in sys.modules if m.split('.')[0] not in {*sys.stdlib_module_names, 'ftagent', '__main__'}])"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(Path(trial_child.__file__).parents[2])})  # fmt: skip
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("passing", "names", "found"),
    [
        ("flags", {"lr": "--lr", "opt": "opt=", "on": "--on"}, ["--lr", "0.1", "opt=adam w", "--on", "--off", "7"]),
        ("overrides", {}, ["-o", "lr=0.1", "-o", "opt=adam w", "-o", "on=true", "-o", "off=7"]),
        ("json", {"lr": "rate"}, {"rate": 0.1, "opt": "adam w", "on": True, "off": 7}),
        ("environment", {"on": "USE_IT"}, {"LR": "0.1", "OPT": "adam w", "USE_IT": "true", "OFF": "7"}),
    ],
)
def test_parameters_reach_the_script(tmp_path: Path, passing: str, names: dict[str, str], found: object) -> None:
    script = """
    import json, os, sys
    if sys.argv[1:]:
        seen = sys.argv[1:]
    elif "FTAGENT_CONFIG" in os.environ:
        seen = json.load(open(os.environ["FTAGENT_CONFIG"]))
    else:
        seen = {name: os.environ[name] for name in ("LR", "OPT", "USE_IT", "OFF")}
    json.dump(seen, open("seen.json", "w"))
    """
    prepare(
        tmp_path, script, passing=passing, names=names, parameters={"lr": 0.1, "opt": "adam w", "on": True, "off": 7}
    )
    assert execute(tmp_path).returncode == 0
    assert json.loads((tmp_path / "seen.json").read_text()) == found


def test_a_false_flag_is_left_out() -> None:
    assert words("--on", False) == words("--on", None) == []
    assert words("on=", False) == ["on=false"]


def test_a_trial_that_cannot_win_is_ended_with_its_rule_told(tmp_path: Path) -> None:
    stopping = rules("acc", "maximize", (2, 0.01), (5, 0.5), rule="best half of 4 trials")
    prepare(tmp_path, ROWS.replace("PAUSE", "0.1"), stopping)
    done = execute(tmp_path)
    assert done.returncode == 0
    assert not (tmp_path / "finished").exists()
    stopped = json.loads((tmp_path / "stopped.json").read_text())
    assert stopped == {"step": 5, "value": 0.05, "needs": 0.5, "metric": "acc", "direction": "maximize",
                       "rule": "best half of 4 trials"}  # fmt: skip
    assert "stopped at step 5: acc is 0.05, at least 0.5 was needed to go on (best half of 4 trials)" in done.stdout


def test_a_trial_is_judged_alike_when_it_was_too_fast_to_be_watched(tmp_path: Path) -> None:
    prepare(tmp_path, ROWS.replace("PAUSE", "0"), rules("acc", "maximize", (5, 0.5)))
    assert execute(tmp_path).returncode == 0
    assert json.loads((tmp_path / "stopped.json").read_text())["step"] == 5


@pytest.mark.parametrize(
    "stopping",
    [None, rules("acc", "minimize", (5, 0.06)), rules("acc", "maximize", (5, 0.05), (99, 3)),
     rules("other", "maximize", (1, 9)), {"metric": "acc"}, {"metric": "acc", "rungs": 3},
     {"metric": "acc", "rungs": [{"step": "x", "needs": 1}]}],
)  # fmt: skip
def test_no_rule_and_a_rule_that_is_kept_let_it_run(tmp_path: Path, stopping: dict[str, Any] | None) -> None:
    (tmp_path / "stopped.json").write_text("{}")  # of an earlier try
    prepare(tmp_path, ROWS.replace("PAUSE", "0"), stopping)
    done = execute(tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "finished").exists()
    assert not (tmp_path / "stopped.json").exists()


def test_a_live_metric_that_is_no_number_cannot_win(tmp_path: Path) -> None:
    prepare(tmp_path, ROWS.replace("PAUSE", "0.1"), rules("loss", "minimize", (3, 100.0)))
    assert execute(tmp_path).returncode == 0
    assert json.loads((tmp_path / "stopped.json").read_text())["value"] is None


def watcher(folder: Path, *rungs: tuple[int, float]) -> Watcher:
    (folder / "stopping.json").write_text(json.dumps(rules("acc", "maximize", *rungs)))
    return Watcher(read_rules(folder / "stopping.json"), folder, ["metrics.jsonl", "model/metrics.jsonl"])


def test_a_minus_before_the_name_turns_a_metric_round(tmp_path: Path) -> None:
    script = ROWS.replace("PAUSE", "0").replace('float("nan")', "1 / step")
    prepare(tmp_path, script, rules("-loss", "maximize", (2, -0.6), (4, -0.2)))
    done = execute(tmp_path)
    assert "stopped at step 4: loss is 0.25, at most 0.2 was needed to go on (median)" in done.stdout
    stopped = json.loads((tmp_path / "stopped.json").read_text())
    assert (stopped["metric"], stopped["direction"], stopped["needs"]) == ("loss", "minimize", 0.2)


def test_torn_and_foreign_rows_are_skipped(tmp_path: Path) -> None:
    watch = watcher(tmp_path, (3, 0.5))
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        'nonsense\n[1]\n{"step": null, "acc": 1}\n{"acc": 0}\n{"step": 9}\n{"step": 2, "acc": 0}\n{"step": 3, "a'
    )
    assert watch.look() is None
    with path.open("a") as file:
        file.write('cc": 0.4}')
        file.flush()
        assert watch.look() is None  # the row may go on
    stop = watch.look(last=True)
    assert stop is not None
    assert (stop.step, stop.value, stop.needs) == (3, 0.4, 0.5)


def test_rows_that_are_written_anew_are_read_from_their_beginning(tmp_path: Path) -> None:
    watch = watcher(tmp_path, (1, 0.1), (2, 0.5))
    path = tmp_path / "model/metrics.jsonl"
    path.parent.mkdir()
    path.write_text('{"step": 1, "acc": 0.2}\n{"note": "long enough to be longer than what follows"}\n')
    assert watch.look() is None
    path.write_text('{"step": 2, "acc": 0.3}\n')
    stop = watch.look()
    assert stop is not None
    assert stop.step == 2


def test_what_ignores_the_request_to_end_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
    import signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    open("child", "w").write(str(child.pid))
    open("metrics.jsonl", "w").write('{"step": 1, "acc": 0}\\n')
    time.sleep(60)
    """
    prepare(tmp_path, script, rules("acc", "maximize", (1, 1)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial_child, "GRACE_SECONDS", 0.2)
    began = time.monotonic()
    assert run(Trial(["python", "train.py"])) == 0
    assert time.monotonic() - began < 30
    pid = int((tmp_path / "child").read_text())
    state = Path("/proc", str(pid), "status")
    assert not state.exists() or "zombie" in state.read_text()


HUNGRY = """
import os, signal, sys
size = int(sys.argv[2])
open("tried", "a").write(f"{size}\\n")
if size > LIMIT:
    FAIL
open("done", "w").write(str(size))
"""


@pytest.mark.parametrize(
    "fail",
    ["raise MemoryError", "sys.exit('RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: "
     "can\\'t allocate memory: you tried to allocate 9 bytes')", "os.kill(os.getpid(), signal.SIGKILL)",
     "sys.exit('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB')"],
)  # fmt: skip
def test_a_trial_that_runs_out_of_memory_is_tried_again_with_half(tmp_path: Path, fail: str) -> None:
    script = HUNGRY.replace("FAIL", fail).replace("LIMIT", "20")
    prepare(tmp_path, script, passing="flags", parameters={"batch": 64}, memory={"batch": [4]})
    done = execute(tmp_path)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "tried").read_text().split() == ["64", "32", "16"]
    adjusted = json.loads((tmp_path / "adjusted.json").read_text())
    assert adjusted == {"batch": {"from": 64, "to": 16, "why": "out of memory"}}
    assert "trial: out of memory with batch 64; tried again with batch 32" in done.stdout


@pytest.mark.parametrize(
    ("low", "tried"), [(24, ["64", "32", "24"]), (1, ["64", "32", "16", "8", "4"]), (64, ["64"])]
)  # fmt: skip
def test_it_ends_at_the_least_value_or_after_four_retries(tmp_path: Path, low: int, tried: list[str]) -> None:
    script = HUNGRY.replace("FAIL", "raise MemoryError").replace("LIMIT", "0")
    prepare(tmp_path, script, passing="flags", parameters={"batch": 64}, memory={"batch": [low]})
    done = execute(tmp_path)
    assert done.returncode == 1
    assert (tmp_path / "tried").read_text().split() == tried
    assert done.stdout.splitlines()[-1] == f"trial: out of memory, and batch {tried[-1]} cannot be lowered further"


def test_another_failure_is_not_tried_again(tmp_path: Path) -> None:
    script = HUNGRY.replace("FAIL", "sys.exit(7)").replace("LIMIT", "0")
    prepare(tmp_path, script, passing="flags", parameters={"batch": 64}, memory={"batch": [1]})
    assert execute(tmp_path).returncode == 7
    assert (tmp_path / "tried").read_text().split() == ["64"]
    assert not (tmp_path / "adjusted.json").exists()


def test_values_are_lowered_within_what_is_allowed() -> None:
    trial = Trial(["x"], memory={"size": [8, 12, 48, 64], "rate": [0.5], "name": [1]})
    assert lowered(trial, {"size": 64, "rate": 0.7, "name": "x"}) == {"size": 12, "rate": 0.5, "name": "x"}
    assert lowered(trial, {"size": 12, "rate": 0.5, "name": "x"}) == {"size": 8, "rate": 0.5, "name": "x"}
    assert lowered(trial, {"size": 8, "rate": 0.5, "name": "x"}) == {"size": 8, "rate": 0.5, "name": "x"}


def test_signals_reach_the_script_and_its_exit_code_comes_back(tmp_path: Path) -> None:
    script = """
    import signal, sys, time
    def end(number, frame):
        open("asked", "w").close()
        sys.exit(9)
    signal.signal(signal.SIGTERM, end)
    print("ready", flush=True)
    time.sleep(60)
    """
    prepare(tmp_path, script)
    with subprocess.Popen(COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 9
    assert (tmp_path / "asked").exists()


def test_output_passes_and_a_signal_is_told_as_a_shell_does(tmp_path: Path) -> None:
    prepare(tmp_path, "import os, sys; print('a' * 300000); sys.stdout.flush(); os.abort()")
    done = execute(tmp_path)
    assert done.returncode == 128 + signal.SIGABRT
    assert done.stdout.startswith("a" * 300000)


def test_a_repeated_training_runs_in_a_folder_of_its_own(tmp_path: Path) -> None:
    script = "import helper, os; os.mkdir('out'); open('out/x', 'w').write(helper.NAME)"
    prepare(tmp_path, script, folder="repeated/1", files=["train.py", "lib/helper.py"], outputs=["out"],
            variables={"PYTHONPATH": "lib"})  # fmt: skip
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/helper.py").write_text("NAME = 'seed 1'")
    done = execute(tmp_path)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "repeated/1/out/x").read_text() == "seed 1"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("trial", "code", "words"),
    [
        ({"outputs": ["model"]}, 1, "the script ended well and left no model"),
        ({"command": ["no-such-program"]}, 127, "no-such-program: cannot be started"),
        ({"refused": "config.json: lr: 9 is outside its range"}, 2, "trial: config.json: lr: 9 is outside its range"),
        ({"comand": []}, 2, "no key but"),
        ({"command": []}, 2, "with `command`"),
        ({"passing": "json", "config": "none.json"}, 2, "none.json: cannot be read"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, trial: dict[str, Any], code: int, words: str) -> None:
    prepare(tmp_path, "pass", **trial)
    done = execute(tmp_path)
    assert done.returncode == code
    assert words in done.stdout.splitlines()[-1]
    assert len(done.stdout.splitlines()) == 1


GREEDY = """
import sys, time
blocks = []
for _ in range(int(sys.argv[2])):
    blocks.append(b"x" * 2**20)
    time.sleep(float(sys.argv[3]))
"""


@pytest.mark.parametrize(("control_groups", "pause"), [(True, 0.0), (True, 0.01), (False, 0.01)])
def test_a_bound_of_the_environment_is_met_by_lowering(tmp_path: Path, control_groups: bool, pause: float) -> None:
    if control_groups and "memory" not in discover():
        pytest.skip("no control group for memory can be made here")
    trial = {"passing": "flags", "parameters": {"mb": 400}, "memory": {"mb": [10]}, "memory_mb": 150}
    prepare(tmp_path, GREEDY.replace("sys.argv[3]", repr(pause)), **trial)
    environment = LocalEnvironment(LocalOptions(control_groups=control_groups))
    files = {"trial.json": (tmp_path / "trial.json").read_text()}
    stage = Stage("train", "full", ("python", *COMMAND[1:]), time_limit=60.0, resources=Resources(memory_mb=150),
                  files=files, adapts=True)  # fmt: skip
    lines: list[str] = []
    found = asyncio.run(environment.execute(stage, tmp_path, lines.append, tmp_path / "log"))
    assert (found.end, found.exit_code) == ("ok", 0), lines
    assert json.loads((tmp_path / "adjusted.json").read_text())["mb"]["to"] == 100
    assert "trial: out of memory with mb 400; tried again with mb 200" in lines


@pytest.mark.parametrize(("value", "text"), [(-1e-05, "-0.00001"), (-2.5e20, "-250000000000000000000"), (-0.5, "-0.5")])
def test_argparse_takes_a_small_negative_number_for_a_number(value: float, text: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shift", type=float)
    assert words("--shift", value) == ["--shift", text]
    assert parser.parse_args(words("--shift", value)).shift == value
