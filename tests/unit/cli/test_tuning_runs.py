"""Runs of agents that tune, as the command line starts, stops, resumes, shows and replays them."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from .conftest import CommandLine

ROUND: dict[str, Any] = {"parameter": "x", "value": 0.6, "reason": "between"}
START = {"keys": ["x", "mode"], "base": None, "why": "x first", "parameter": "x", "value": 0.5, "reason": "the middle"}
NARROW = {"ranges": [{"parameter": "x", "low": 0.5, "high": 0.9}], "why": "x must be large"}
REFLECTION = {"observations": ["seen"], "error_categories": [], "hypothesis_held": "yes", "next": "a larger x"}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scripted model as CHAT_MODEL: prose in loop 2, else rounds, or a structure where that is asked for."""
    said = [
        {"role": "propose", "contains": "narrow the space", "text": json.dumps(NARROW)},
        {"role": "propose", "loop": 0, "text": json.dumps(START)},
        {"role": "propose", "loop": 2, "text": "I would rather talk about the weather."},
        {"role": "propose", "text": json.dumps(ROUND)},
        {"role": "reflect", "text": json.dumps(REFLECTION)},
    ]
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump({"replies": said}))
    monkeypatch.setenv("CHAT_MODEL", f"scripted/{path}")
    monkeypatch.setenv("FTAGENT_MEMORY", "False")
    return path


def started(*words: str) -> tuple[str, ...]:
    return ("run", "--scenario", "noop", "--loop-n", "5", *words)


def shown(ftagent: CommandLine, name: str) -> list[dict[str, Any]]:
    """The experiments of `show --json`, which keeps to its schema."""
    document = json.loads(ftagent("show", name, "--json").out)
    schema = json.loads((files("ftagent.cli") / "schemas" / "show.json").read_text())
    jsonschema.validate(document, schema)
    experiments: list[dict[str, Any]] = document["experiments"]
    return experiments


def essence(experiments: list[dict[str, Any]]) -> list[Any]:
    return [(one["hypothesis"], one["feedback"]) for one in experiments]


def test_rounds_with_a_model_stopped_in_the_middle_and_resumed(ftagent: CommandLine, model: Path) -> None:
    words = ("-o", "plan=univariate", "-o", "rounds=2", "-o", "items=100", "--agent", "llm")
    assert ftagent(*started(*words, "--name", "whole")).code == 0
    # Stopped after the propose step of loop 1, the second round of x.
    assert ftagent(*started(*words, "--name", "pieces", "--step-n", "6")).code == 3
    assert [one["hypothesis"]["plan"]["round"] for one in shown(ftagent, "pieces")] == [1, 2]
    assert ftagent("resume", "pieces").code == 0
    whole = shown(ftagent, "whole")
    assert essence(shown(ftagent, "pieces")) == essence(whole)
    assert [one["hypothesis"]["plan"].get("key") for one in whole] == ["x", "x", None, "mode", "x"]
    assert whole[0]["hypothesis"]["plan"]["keys"] == ["x", "mode"]
    assert whole[2]["hypothesis"]["abandoned"].startswith("propose: no usable reply in 3 tries")
    assert whole[3]["hypothesis"]["notes"][0] == "refused: x is not tuned in this round, mode is"
    assert whole[1]["feedback"]["next"] == "a larger x"
    replayed = ftagent("replay", "pieces", "--json")
    assert json.loads(replayed.out)["equal"], replayed.out


@pytest.mark.parametrize(
    ("words", "agent", "modes"),
    [
        (("--agent", "search", "-o", "plan=univariate"), "search", {"univariate"}),
        (("--agent", "search", "-o", "plan=joint", "-o", "sampler=tpe"), "search", {"joint"}),
        (("--agent", "hybrid", "-o", "plan=univariate"), "hybrid", {"hybrid"}),
        (("--agent", "hybrid"), "hybrid", {"hybrid"}),
        (("--agent", "llm", "-o", "plan=joint"), "hybrid", {"hybrid"}),
        (("-o", "plan=univariate",), "llm", {"univariate"}),
    ],
    ids=" ".join,
)  # fmt: skip
def test_the_plan_and_the_option_choose_the_agent(
    ftagent: CommandLine, model: Path, tmp_path: Path, words: tuple[str, ...], agent: str, modes: set[str]
) -> None:
    answer = ftagent(*started(*words, "-o", "items=100", "--name", "one"))
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "log/one/run.json").read_text())["agent"] == agent
    experiments = shown(ftagent, "one")
    assert {one["hypothesis"]["plan"]["mode"] for one in experiments if one["hypothesis"]["plan"]} == modes
    if agent == "hybrid":
        assert all(0.5 <= one["hypothesis"]["params"]["x"] <= 0.9 for one in experiments[1:])
    assert ftagent("replay", "one").code == 0


def test_values_alone_need_no_sandbox_and_code_does(
    ftagent: CommandLine, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))  # no bubblewrap there
    here = ("--env", "local", "--dry-run")
    assert ftagent(*started("--agent", "llm", *here)).code == 2
    assert ftagent(*started("--agent", "llm", "-o", "plan=univariate", *here)).code == 0
    assert ftagent(*started("--agent", "hybrid", *here)).code == 0


def test_a_dry_run_reckons_with_the_loops_that_ask(ftagent: CommandLine, model: Path) -> None:
    def calls(*words: str) -> list[float]:
        document = json.loads(ftagent(*started(*words, "--loop-n", "12", "--dry-run", "--json")).out)
        found: list[float] = document["language"]["calls"]
        return found

    assert calls("--agent", "hybrid", "-o", "plan=joint") == [3, 3]
    assert calls("--agent", "llm", "-o", "plan=univariate") == [24, 24]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--agent", "hybrid"), "error: --agent hybrid: CHAT_MODEL is not set; `ftagent init` sets it, or use"),
        (("--agent", "llm", "-o", "plan=univariate"), "error: --agent llm: CHAT_MODEL is not set"),
        (("-o", "plan=joint", "-o", "sampler=best"), "error: sampler 'best': no such sampler; valid: auto, tpe, gp,"),
        (("-o", "plan=both"), "error: -o plan=both: input should be '', 'univariate' or 'joint'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_one_line(
    ftagent: CommandLine, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.delenv("CHAT_MODEL", raising=False)
    answer = ftagent(*started(*words))
    assert answer.code == 2
    assert answer.err.startswith(message)
    assert len(answer.err.strip().splitlines()) == 1
