"""Rewards by name: what each verifier accepts, and what it says of problems that it cannot judge."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.data import Problem
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.verifiers import registry
from ftagent.toolkit.verifiers.registry import load_verifier
from ftagent.toolkit.verifiers.tasks import build_dataset
from ftagent.toolkit.verifiers.worker import GradingWorker


def problem(answer: str, **extra: Any) -> Problem:
    return Problem(({"role": "user", "content": "What?"},), answer, 3, "p", extra)


@pytest.mark.parametrize(
    ("name", "answer", "output", "reward"),
    [
        ("number", "72", "so it is 72", 1.0),
        ("number", "72", "so it is 73", 0.0),
        ("number", "72", "", 0.0),
        ("gsm8k", "48/2 is 24\n#### 1,024", "The answer is 1024.", 1.0),
        ("gsm8k", "48/2 is 24\n#### 1,024", "24", 0.0),
        ("exact", "A B", "<think>no</think> A B\n", 1.0),
        ("exact", "A B", "It is A B", 0.0),
        ("boxed", "7", r"first \boxed{6}, then \boxed{7.0}", 1.0),
        ("boxed", "7", "7", 0.0),
        ("boxed", "x + 1", r"\boxed{\text{x  +  1}}", 1.0),
        ("math", r"\frac{1}{2}", r"\boxed{0.5}", 1.0),
        ("math", r"2x + 1", r"so $\boxed{1 + 2x}$", 1.0),
        ("math", r"2x + 1", r"\boxed{2x + 2}", 0.0),
        ("math", "5", "", 0.0),
        ("rg:chain_sum", "7", "2 + 5 = 7", 1.0),
        ("rg:chain_sum", "7", "17", 0.0),
    ],
)
def test_rewards(name: str, answer: str, output: str, reward: float) -> None:
    assert load_verifier(name).reward(problem(answer), output) == reward


@pytest.mark.parametrize("task", ["rg:letter_counting", "rg:countdown", "rg:word_sorting", "rg:course_schedule"])
def test_a_task_judges_its_own_entries_with_their_metadata(task: str) -> None:
    entry = build_dataset(task, seed=4)[0]
    verifier = load_verifier(task)
    own = Problem(({"role": "user", "content": entry["question"]},), entry["answer"], 1, "", entry)
    assert verifier.reward(own, f"<answer>{entry['answer']}</answer>") == 1.0
    assert verifier.reward(own, "<answer>nothing</answer>") < 0.2
    assert verifier.fault(own) == ""


def test_a_task_gives_part_of_the_reward_to_what_is_partly_right() -> None:
    entry = build_dataset("rg:word_sorting", seed=4)[0]
    verifier = load_verifier("rg:word_sorting")
    words = entry["answer"].split(", ")
    own = Problem(({"role": "user", "content": entry["question"]},), entry["answer"], 1, "", entry)
    assert 0 < verifier.reward(own, ", ".join(reversed(words))) < 1


@pytest.mark.parametrize(
    ("name", "answer", "says"),
    [
        ("number", "seven", "the answer 'seven' is not a number"),
        ("math", "  ", "has no answer"),
        ("rg:countdown", "3*4", 'does not accept the row\'s own answer .*no key "metadata"'),
    ],
)
def test_a_problem_that_cannot_be_judged_is_named(name: str, answer: str, says: str) -> None:
    import re

    verifier = load_verifier(name)
    assert re.search(says, verifier.fault(problem(answer)))
    assert load_verifier("number").fault(problem("5")) == ""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "numbr",
            "verifier: unknown 'numbr'; did you mean 'number'? valid: boxed, exact, gsm8k, math, number, rg:TASK",
        ),
        ("rg:chain_sun", "did you mean 'chain_sum'"),
        ("rg:chain_sum?min_term=2", "did you mean 'min_terms'"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest(name: str, says: str) -> None:
    with pytest.raises(ToolkitError) as error:
        load_verifier(name)
    assert says in str(error.value)


def shortness(problem: Problem, output: str) -> float:
    return float(problem.answer) - len(output)


def test_a_plug_in_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("short", f"{__name__}:shortness", registry.PLUGINS),
        EntryPoint("gone", "no_such_module:rule", registry.PLUGINS),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.PLUGINS else [])
    assert load_verifier("short").reward(problem("10"), "abc") == 7.0
    with pytest.raises(ToolkitError, match="verifier 'short' at row 3: ValueError: could not convert"):
        load_verifier("short").reward(problem("x"), "abc")
    with pytest.raises(ToolkitError, match="gives inf; a reward is a finite number"):
        load_verifier("short").reward(problem("inf"), "abc")
    with pytest.raises(ToolkitError, match="verifier 'gone' cannot be loaded: No module named"):
        load_verifier("gone")
    with pytest.raises(ToolkitError, match="did you mean 'short'"):
        load_verifier("shrt")


def test_a_file_beside_the_command_does_not_grade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "math_verify.py").write_text(
        "def parse(text):\n    return [text]\n\n\ndef verify(one, other):\n    return True\n"
    )
    monkeypatch.chdir(tmp_path)
    worker = GradingWorker()
    assert worker.math_equal("\\frac{84}{2}", "42")
    assert not worker.math_equal("\\frac{1}{3}", "42")
    worker.close()
