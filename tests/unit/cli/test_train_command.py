"""`ftagent train`: what it refuses, what it shows, what it prints, what comes after."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ftagent.cli.afterwards import commands, next_commands, parse_steps, shown
from ftagent.cli.progress.training import LiveTraining, PlainTraining
from ftagent.core.errors import RequestError
from ftagent.toolkit.config import TrainConfig, validate_config
from unit.toolkit.conftest import smollm2, tiny, tokenizer  # noqa: F401
from unit.toolkit.rows import conversations

from .conftest import CommandLine
from .test_bad_input import listing, refused
from .test_commands import check
from .test_evaluate import SUMS

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
KEYS = "model_path: smollm2-135m\ndataset_path: rows.jsonl\nsave_model_path: out\nepochs: 1\n"


def ready(folder: Path, text: str = KEYS) -> None:
    conversations(folder / "rows.jsonl", 6)
    (folder / "config.yaml").write_text(text)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["absent.yaml"], "absent.yaml: cannot be read: No such file"),
        (["config.yaml", "-o", "rnk=1"], "-o rnk=1: rnk: unknown key; did you mean 'rank'?"),
        (["config.yaml", "-o", "model_path=smollm2-135n"], "smollm2-135m"),
        (["config.yaml", "-o", "dataset_path=absent.jsonl"], "absent.jsonl: "),
        (["config.yaml", "--then", "evalute"], "--then: no step 'evalute'; did you mean 'evaluate'?"),
        (["config.yaml", "--then", "merge,merge"], "--then: merge is given twice"),
        (["config.yaml", "--then", "evaluate"], "--benchmark NAME"),
        (["config.yaml", "--then", "evaluate", "--benchmark", "gsm9k"], "gsm8k"),
        (["config.yaml", "--then", "chat-script"], "then: {script: FILE}"),
        (["config.yaml", "--then", "chat-script", "-o", "then.script=absent.json"], "absent.json: no such file"),
        (["config.yaml", "--then", "chat-script", "-o", "then.script=config.yaml"], "config.yaml: not JSON"),
        (["config.yaml", "--then", "merge"], "then: {merge_path: DIR}"),
        (["config.yaml", "--then", "merge", "-o", "then.merge_path=rows.jsonl"], "rows.jsonl: is there already"),
        (["config.yaml", "--then", "merge", "-o", "then.merge_path=m", "-o", "method=full"], "nothing to merge"),
        (["config.yaml", "--report-to", "wandb"], "pip install 'ftagent[wandb]'"),
        (["config.yaml", "--report-to", "paper"], "tensorboard"),
        (["config.yaml", "--processes", "0"], "--processes"),
    ],
)
def test_wrong_requests_change_nothing(ftagent: CommandLine, tmp_path: Path, words: list[str], says: str) -> None:
    ready(tmp_path)
    before = listing(tmp_path)
    if "dataset_path=absent.jsonl" in words:
        # Data is read before the model, which would be converted here.
        (tmp_path / "m").mkdir()
        (tmp_path / "m/config.json").write_text("{}")
        (tmp_path / "m/model.safetensors").write_bytes(b"")
        words, before = [*words, "-o", "model_path=m"], listing(tmp_path)
    if "wandb" in words:
        ready(tmp_path, KEYS.replace("smollm2-135m", "m"))
        (tmp_path / "m").mkdir()
        (tmp_path / "m/config.json").write_text("{}")
        (tmp_path / "m/model.safetensors").write_bytes(b"")
        before = listing(tmp_path)
    refused(ftagent("train", *words), says)
    assert listing(tmp_path) == before


@pytest.mark.model
def test_a_training_tells_what_it_did_and_what_comes_next(
    ftagent: CommandLine,
    tmp_path: Path,
    tiny: Path,  # noqa: F811
) -> None:
    ready(tmp_path, KEYS.replace("smollm2-135m", str(tiny)))
    words = ["train", "config.yaml", "-o", "batch_size=2", "-o", "validation_share=0.34"]
    answer = ftagent(*words)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert re.search(r"INFO +2 steps over \d+ tokens: rows 4$", lines[0])
    assert any(re.fullmatch(r"step 2 of 2   loss \d+\.\d+   [\d,]+ tokens/s", line) for line in lines)
    assert re.fullmatch(r"out is complete: 2 steps, \d+ tokens in .*; validation loss .* at step 2", lines[-5])
    assert lines[-4:] == [
        "next:", f"  ftagent chat {tiny} --adapter out", f"  ftagent evaluate {tiny} --adapter out --benchmark NAME",
        f"  ftagent merge {tiny} out out-merged",
    ]  # fmt: skip
    document = check("train", ftagent(*words, "--json").out)
    assert (document["already_complete"], document["losses"], document["then"]) == (True, [], {})
    document = check("train", ftagent(*words, "--json", "--fresh").out)
    assert (document["already_complete"], len(document["losses"])) == (False, 2)
    assert document["summary"] == json.loads((tmp_path / "out/summary.json").read_text())
    # An older result stays whole when what is asked for next cannot be done.
    marker = (tmp_path / "out/complete.json").read_text()
    refused(ftagent(*words, "-o", "dtype=float16"), "dtype: float16 needs a GPU")
    refused(ftagent(*words, "-o", "layers=9"), "layers: 9 is more than the model's 3")
    assert (tmp_path / "out/complete.json").read_text() == marker


@pytest.mark.model
@pytest.mark.slow
def test_what_comes_after_is_done_in_the_same_command(
    ftagent: CommandLine,
    tmp_path: Path,
    tiny: Path,  # noqa: F811
) -> None:
    ready(tmp_path, KEYS.replace("smollm2-135m", str(tiny)))
    words = ["train", "config.yaml", "--then", "evaluate", "-o", "then.limit=2", "--benchmark", SUMS]
    document = check("train", ftagent(*words, "--json").out)
    after = document["then"]["evaluate"]
    assert after["benchmark"].startswith("rg:chain_sum?")
    assert (after["split"], after["score"]["n"]) == ("validation", 2)
    assert after["adapter"] == "out"
    answer = ftagent(*words)
    assert f"ftagent evaluate {tiny} --adapter out --benchmark" in answer.out
    assert "next:" not in answer.out


def test_the_commands_that_come_after() -> None:
    values = {"model_path": "/resolved", "dataset_path": "d", "save_model_path": "out", "epochs": 1}
    then: dict[str, Any] = {"benchmark": "gsm8k", "limit": 5, "split": "test", "merge_path": "m"}
    then |= {"script": "s.json", "answers": "a.json"}
    adapter = validate_config({**values, "then": then}, TrainConfig, "config.yaml")
    full = validate_config({**values, "then": then, "method": "full"}, TrainConfig, "config.yaml")
    assert [shown(words) for words in commands(parse_steps("evaluate, chat-script,merge"), adapter, "base")] == [
        "ftagent evaluate base --adapter out --benchmark gsm8k --split test --limit 5",
        "ftagent chat base --adapter out --script s.json --out a.json",
        "ftagent merge base out m --dtype auto",
    ]
    assert [shown(words) for words in next_commands(full, "base")] == [
        "ftagent chat out", "ftagent evaluate out --benchmark gsm8k",
    ]  # fmt: skip
    with pytest.raises(RequestError, match="no step 'sing'; there are evaluate, chat-script, merge"):
        parse_steps("sing")


LINES: list[dict[str, Any]] = [
    {"event": "data", "steps": 4, "tokens": 400, "rows": 9},
    *({"step": n, "loss": 4.0 / n, "tokens": 100 * n, "learning_rate": 1e-3, "seconds": 2.0 * n} for n in (1, 2)),
    {"step": 2, "validation_loss": 1.5, "best": True, "tokens": 200, "seconds": 4.0},
    {"step": 3, "loss": 1.25, "tokens": 300, "learning_rate": 1e-3, "seconds": 6.0},
]


def test_the_live_region_shows_curve_speed_and_time_left() -> None:
    screen = io.StringIO()
    display = LiveTraining(Console(file=screen, force_terminal=True, width=90, color_system=None))
    display.open()
    for line in LINES:
        display.record(line)
    display.log("a line above")
    shown_now = io.StringIO()
    Console(file=shown_now, width=90).print(display._region.picture())
    display.close()
    region = shown_now.getvalue()
    assert "4.000 → 1.250" in region
    assert "1.5000, the best so far" in region
    assert "3 of 4" in region
    assert "50 tokens/s   0:02 left" in region
    assert all(len(line) <= 90 for line in region.splitlines())
    assert "a line above" in screen.getvalue()


def test_plain_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainTraining()
    for line in [*LINES, {**LINES[-1], "step": 4, "tokens": 400, "seconds": 8.0}]:
        display.record(line)
    assert capsys.readouterr().out.splitlines() == [
        "step 1 of 4   loss 4.0000", "step 4 of 4   loss 1.2500   50 tokens/s",
    ]  # fmt: skip


@pytest.mark.model
def test_two_processes_are_started_and_stopped(tmp_path: Path, tiny: Path) -> None:  # noqa: F811
    """Ctrl-C reaches both; the same command goes on."""
    conversations(tmp_path / "rows.jsonl", 40)
    (tmp_path / "config.yaml").write_text(KEYS.replace("smollm2-135m", str(tiny)).replace("epochs: 1", "epochs: 40"))
    command = [sys.executable, "-m", "ftagent", "train", "config.yaml", "--processes", "2", "-o", "checkpoint_steps=2"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*command, "-o", "batch_size=4"], cwd=tmp_path, env=os.environ, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith("step "):
                process.send_signal(2)
                break
        process.stdout.read()
        errors = process.stderr.read()
    assert process.returncode == 3, errors
    assert re.fullmatch(r"error: stopped after step \d+ of 400; the same command goes on from step \d+\n", errors)
    assert list((tmp_path / "out/checkpoints").glob("step-*/complete.json"))
