"""`score` on files of predictions; `evaluate` on the demonstration model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftagent.core.context import HubAccess
from ftagent.evaluation.registry import resolve_benchmark
from support.trained import save_training

from .conftest import CommandLine
from .test_bad_input import refused
from .test_commands import check

SUMS = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2"


def predictions(path: Path, right: int, count: int) -> Path:
    """Answers to the first `count` validation items, of which `right` are right."""
    items = resolve_benchmark(SUMS, HubAccess(), path.parent).items("validation", count)
    rows = [{"id": item.id, "output": f"The answer is {item.answer}."} for item in items[:right]]
    rows += [{"id": item.id, "output": "I do not know"} for item in items[right:]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_score_of_a_file(ftagent: CommandLine, tmp_path: Path) -> None:
    file = predictions(tmp_path / "p.jsonl", right=3, count=10)
    words = ["score", SUMS, "--predictions", file, "--limit", "10"]
    document = check("score", ftagent(*words, "--json", "--details", tmp_path / "d.jsonl").out)
    assert (document["score"]["value"], document["score"]["n"]) == (0.3, 10)
    graded = [json.loads(line)["values"] for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert graded == [[1.0]] * 3 + [[0.0]] * 7
    assert "accuracy 0.300 (0.108 to 0.603, n 10)" in ftagent(*words).out


@pytest.mark.parametrize("content", ["", "no json\n", '{"id": "validation-0", "output": 3}\n', '{"output": "1"}\n'])
def test_predictions_that_cannot_be_scored(ftagent: CommandLine, tmp_path: Path, content: str) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    refused(ftagent("score", SUMS, "--predictions", "p.jsonl"), "p.jsonl")


def test_wrong_requests_are_refused_before_anything_is_predicted(ftagent: CommandLine, tmp_path: Path) -> None:
    refused(ftagent("evaluate", "smollm2-135m"), "--benchmark", "gsm8k")
    refused(ftagent("evaluate", "smollm2-135m", "--benchmark", "gsm9k"), "gsm9k", "gsm8k")
    refused(ftagent("evaluate", "smollm2-135n", "--benchmark", SUMS), "smollm2-135n", "smollm2-135m")
    refused(ftagent("evaluate", "smollm2-135m", "--benchmark", SUMS, "--details", "absent/x"), "absent/x")
    refused(ftagent("evaluate", "smollm2-135m", "--benchmark", SUMS, "--split", "train"), "train", "validation")
    refused(ftagent("score", SUMS), "--predictions")
    assert list(tmp_path.iterdir()) == []
    trained = save_training(tmp_path / "trained")
    (trained / "adapter_model.safetensors").write_bytes(b"")
    words = ["evaluate", "smollm2-135m", "--benchmark", SUMS, "--adapter"]
    refused(ftagent(*words, trained), "trained: damaged: adapter_model.safetensors is not what was written")
    (trained / "complete.json").unlink()
    refused(ftagent(*words, trained), "trained: incomplete: complete.json is missing")
    refused(ftagent(*words, "absent"), "absent: the folder has no adapter_config.json")
    refused(ftagent(*words, "best"), "--adapter best: of which training? Give its folder as MODEL")
    refused(ftagent("evaluate", trained, "--benchmark", SUMS), "trained: incomplete: complete.json is missing")
    refused(ftagent("evaluate", trained, "--benchmark", SUMS, "--adapter", "step-7"), "no such checkpoint in")


@pytest.mark.parametrize(
    "command", [["evaluate", "tiny/model"], ["run", "--scenario", "llm", "--base-model", "tiny/model"]]
)
def test_models_of_the_hub_lie_in_hf_home(
    ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """The refusal of a model without weights names the folder where it was found."""
    cached = tmp_path / "home/hub/models--tiny--model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("0123abcd")
    snapshot = cached / "snapshots/0123abcd"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(ftagent(*command, "--benchmark", SUMS), str(snapshot), "no *.safetensors")


@pytest.mark.model
@pytest.mark.slow
def test_evaluate_the_demonstration_model(
    ftagent: CommandLine, tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The converted weights stay in pytest's cache, where other tests keep them, too.
    assert pytestconfig.cache is not None
    monkeypatch.setenv("FT_FILE_PATH", str(pytestconfig.cache.mkdir("ftagent_files")))
    words = ["evaluate", "smollm2-135m", "--benchmark", SUMS, "--limit", "4", "--json", "--details", "d.jsonl"]
    answer = ftagent(*words)
    assert answer.code == 0, answer.err
    document = check("evaluate", answer.out)
    assert (document["score"]["n"], document["details"]["answered_rate"]) == (4, 1.0)
    assert len((tmp_path / "d.jsonl").read_text().splitlines()) == 4
