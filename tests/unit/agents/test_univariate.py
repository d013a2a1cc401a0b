"""One parameter at a time: keys, rounds, what is fixed, what is refused, and the same again after a stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ftagent.agents.tuning import rounds
from ftagent.agents.tuning.adviser import LlmAdviser, LlmUnivariateAgent
from ftagent.agents.tuning.univariate import UnivariateAgent
from ftagent.core.calls import Calls
from ftagent.core.engine import EngineOptions
from ftagent.core.errors import AgentUnavailable
from ftagent.core.events import Limits
from ftagent.core.run_folder import RunFolder
from ftagent.core.search_plan import SearchPlan
from ftagent.core.types import Brief, Experiment, Hypothesis, Parameter, Trace
from support import drive, noop, story
from support.tuning import SPACE, brief_of, play, start_of
from unit.agents.conftest import fenced, reflection
from unit.llm.conftest import Counting, client

PLAN = SearchPlan("univariate", rounds_per_parameter=3)
ORDERED = replace(PLAN, priority=("rate", "batch", "mode"))
Made = Callable[..., tuple[LlmUnivariateAgent, Counting]]


def bowl(params: Mapping[str, Any]) -> float:
    """Best at rate 1e-4, batch 6, mode better."""
    rate = (math.log10(params["rate"]) + 4) ** 2
    return 0.9 - 0.1 * rate - 0.01 * (params["batch"] - 6) ** 2 - (0.1 if params["mode"] == "plain" else 0.0)


def start(**changes: Any) -> str:
    made = {"keys": ["rate", "batch"], "base": None, "why": "they matter", "parameter": "rate", "value": 1e-4,
            "reason": "ten times the default", "expected_effect": "+0.1"}  # fmt: skip
    return fenced({**made, **changes})


def value(parameter: str, value: Any, reason: str = "to see") -> str:
    return fenced({"parameter": parameter, "value": value, "reason": reason})


def said(*texts: str) -> list[dict[str, Any]]:
    """Replies of the propose step by loop; the last one stays."""
    replies = [{"role": "propose", "loop": loop, "text": text} for loop, text in enumerate(texts[:-1])]
    return [*replies, {"role": "propose", "text": texts[-1]}, {"role": "reflect", "text": reflection(next="then 2")}]


@pytest.fixture
def tuned(tmp_path: Path) -> Made:
    """`tuned(replies)`: the agent with a model, and the backend that counts what it asks."""

    def make(replies: list[dict[str, Any]], **script: Any) -> tuple[LlmUnivariateAgent, Counting]:
        path = tmp_path / "model.yaml"
        path.write_text(yaml.safe_dump({"replies": replies, **script}))
        backend = Counting(path)
        return LlmUnivariateAgent(LlmAdviser(client(backend, Calls(), tmp_path, print))), backend

    return make


def places(trace: Trace) -> list[tuple[int, str, int]]:
    """(pass, key, round) of each loop."""
    plans = [experiment.hypothesis.plan for experiment in trace.experiments]
    return [(plan["pass"], plan["key"], plan["round"]) for plan in plans if plan]


async def test_each_key_has_its_rounds_and_a_second_pass_follows(brief: Brief) -> None:
    tuning = brief_of(brief, replace(PLAN, priority=("rate", "batch")))
    trace = await play(UnivariateAgent(), tuning, 10, bowl)
    expected = [(1, key, number) for key in ("rate", "batch") for number in (1, 2, 3)]
    assert places(trace) == [*expected, (2, "rate", 1), (2, "rate", 2), (2, "rate", 3), (2, "batch", 1)]
    assert trace.experiments[0].hypothesis.plan["keys"] == ["rate", "batch"]


async def test_only_the_key_changes_and_the_best_value_is_fixed_before_the_next(brief: Brief) -> None:
    tuning = brief_of(brief, ORDERED)
    trace = await play(UnivariateAgent(), tuning, 8, bowl)
    known = [({p.name: p.default for p in SPACE}, bowl({p.name: p.default for p in SPACE}))]
    for experiment in trace.experiments:
        params = experiment.hypothesis.params
        best = max(known, key=lambda one: one[1])[0]
        key = experiment.hypothesis.plan["key"]
        assert {name for name in params if params[name] != best[name]} == {key}
        known.append((params, bowl(params)))
    rates = {e.hypothesis.params["rate"] for e in trace.experiments if e.hypothesis.plan["key"] == "batch"}
    best = max(known[:4], key=lambda one: one[1])[0]
    assert rates == {best["rate"]}


async def test_a_key_whose_values_are_all_tried_is_passed_over(brief: Brief) -> None:
    tuning = brief_of(brief, replace(PLAN, priority=("mode", "rate")))
    trace = await play(UnivariateAgent(), tuning, 5, bowl)
    assert [key for _, key, _ in places(trace)] == ["mode", "rate", "rate", "rate", "mode"]
    assert trace.experiments[4].hypothesis.params["mode"] == "plain"


async def test_when_all_keys_are_tried_out_the_others_follow_and_then_nothing(brief: Brief) -> None:
    space = (SPACE[2], Parameter("size", "int", default=1, low=1, high=2), SPACE[3])
    tuning = brief_of(brief, replace(PLAN, priority=("mode",)), space)
    trace = await play(UnivariateAgent(), tuning, 4, lambda params: 0.5 if params["mode"] == "plain" else 0.4)
    assert [key for _, key, _ in places(trace)] == ["mode", "size"]
    last = trace.experiments[-1].hypothesis
    assert last.abandoned == "every value of every parameter was tried on the best configuration"


async def test_the_second_pass_is_finer(brief: Brief) -> None:
    tuning = brief_of(brief, replace(PLAN, priority=("rate", "batch")))
    trace = await play(UnivariateAgent(), tuning, 9, bowl)
    first = [e.hypothesis.params["rate"] for e in trace.experiments[:3]]
    second = [e.hypothesis.params["rate"] for e in trace.experiments[6:9]]
    spread = [math.log10(max(rates)) - math.log10(min(rates)) for rates in (first, second)]
    assert spread[1] < spread[0]


async def test_the_hypothesis_says_what_changes_why_and_on_what_evidence(brief: Brief) -> None:
    trace = await play(UnivariateAgent(), brief_of(brief, ORDERED), 2, bowl)
    first, second = (experiment.hypothesis for experiment in trace.experiments)
    assert first.title == "rate 1e-05 → 5.623e-05 (round 1 of 3)"
    assert "on the default configuration, the best so far (accuracy 0.6600 ± 0.0150 (1000 items))" in first.reason
    assert (first.parent, first.kind) == (None, "draft")
    assert second.title.startswith("rate 5.623e-05 → ")
    assert "after 2 measured values; on loop 0, the best so far" in second.reason
    assert (second.parent, second.kind) == (0, "improve")


async def test_a_failed_round_is_no_base_and_counts(brief: Brief) -> None:
    tuning = brief_of(brief, ORDERED)
    trace = await play(UnivariateAgent(), tuning, 4, lambda p: None if p["rate"] > 1e-5 else bowl(p))
    assert places(trace)[3] == (1, "batch", 1)
    assert all(experiment.hypothesis.params["rate"] != 0 for experiment in trace.experiments)
    assert trace.experiments[3].hypothesis.params["rate"] <= 1e-5


async def test_a_difference_within_noise_is_said(brief: Brief) -> None:
    tuning = brief_of(brief, PLAN)
    trace = start_of(tuning, lambda params: 0.5)
    trace = await play(UnivariateAgent(), tuning, 2, lambda params: 0.501, trace)
    assert "within noise of the default" in trace.experiments[1].hypothesis.reason


# With a model.


async def test_the_model_gives_keys_base_and_first_value_in_one_call(brief: Brief, tuned: Made) -> None:
    tuning = brief_of(brief, PLAN)
    agent, backend = tuned(said(start(base={"mode": "better", "batch": None}), value("rate", 3e-4, "go on")))
    trace = await play(agent, tuning, 2, bowl)
    assert len(backend.requests) == 2
    first, second = (experiment.hypothesis for experiment in trace.experiments)
    assert first.params == {"rate": 1e-4, "batch": 4, "mode": "better", "output": "out"}
    assert first.plan == {
        "mode": "univariate", "key": "rate", "round": 1, "rounds": 3, "pass": 1, "keys": ["rate", "batch"],
        "base": {"mode": "better"}, "why": "they matter",
    }  # fmt: skip
    assert first.title == "rate 1e-05 → 0.0001 (round 1 of 3); base: mode plain → better"
    assert "ten times the default" in first.reason
    assert "they matter" in first.reason
    assert first.expected_effect == "+0.1"
    assert second.params == {**first.params, "rate": 3e-4}
    asked = backend.requests[1].messages[-1].content
    assert "This round tunes rate (round 2 of 3" in asked
    assert "rate = 0.0001: accuracy" in asked
    assert "they matter" not in second.reason
    assert "output = out (protected)" in asked


async def test_the_users_priority_wins_over_the_models(brief: Brief, tuned: Made) -> None:
    tuning = brief_of(brief, replace(PLAN, priority=("batch",)))
    agent, backend = tuned(said(start()))
    trace = await play(agent, tuning, 1, bowl)
    made = trace.experiments[0].hypothesis
    assert made.plan["keys"] == ["batch"]
    assert made.notes == (
        "refused: keys rate, batch: the user wants batch",
        "refused: rate is not tuned in this round, batch is",
        f"batch = {made.params['batch']} is the search's own value",
    )
    assert "The user wants these parameters tuned, in this order: batch." in backend.requests[0].messages[-1].content


@pytest.mark.parametrize(
    ("given", "value_is", "note"),
    [
        ("3e-4", 3e-4, "rate: '3e-4' read as the number 0.0003"),
        (5, 1e-3, "rate: 5 lowered to its highest value, 0.001"),
        (0.0, 1e-6, "rate: 0 raised to its lowest value, 1e-06"),
    ],
)
async def test_a_value_is_coerced_or_clamped_with_a_note(
    brief: Brief, tuned: Made, given: Any, value_is: float, note: str
) -> None:
    agent, _ = tuned(said(start(value=given)))
    made = (await play(agent, brief_of(brief, PLAN), 1, bowl)).experiments[0].hypothesis
    assert made.params["rate"] == value_is
    assert made.notes == (note,)
    assert "ten times the default" in made.reason


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (value("output", "elsewhere"), "output is protected and never changed"),
        (value("bacth", 2), "'bacth' is no parameter; did you mean batch? valid: rate, batch, mode"),
        (value("batch", 2), "batch is not tuned in this round, rate is"),
        (value("rate", 1e-4), "rate = 0.0001 was tried on this configuration"),
        (value("rate", 1e-5), "rate = 1e-05 was tried on this configuration"),
        (value("rate", True), "rate: True is no number"),
        (value("rate", "fast"), "rate: 'fast' is no number"),
        (value("rate", [1e-4]), "rate: [0.0001] is no number"),
        (value("rate", None), "rate: None is no number"),
    ],
)
async def test_an_unusable_suggestion_is_refused_and_the_round_is_not_lost(
    brief: Brief, tuned: Made, reply: str, why: str
) -> None:
    tuning = brief_of(brief, PLAN)
    agent, backend = tuned(said(start(), reply))
    trace = await play(agent, tuning, 2, bowl)
    first, second = (experiment.hypothesis for experiment in trace.experiments)
    assert second.notes == (f"refused: {why}", f"rate = {second.params['rate']:.4g} is the search's own value")
    assert second.params["output"] == "out"
    assert {**second.params, "rate": 0} == {**first.params, "rate": 0}
    assert second.params["rate"] not in (1e-5, 1e-4)
    assert (second.plan["key"], second.plan["round"]) == ("rate", 2)
    assert "to see" not in second.reason
    assert len(backend.requests) == 2


async def test_invalid_keys_and_base_values_are_dropped(brief: Brief, tuned: Made) -> None:
    base = {"output": "elsewhere", "speed": 3, "batch": 99, "mode": "worst", "rate": None}
    agent, _ = tuned(said(start(keys=["output", "speed", "rate", "batch", "mode"], base=base)))
    made = (await play(agent, brief_of(brief, replace(PLAN, keys=2)), 1, bowl)).experiments[0].hypothesis
    assert made.plan["keys"] == ["rate", "batch"]
    assert made.params == {"rate": 1e-4, "batch": 8, "mode": "plain", "output": "out"}
    assert made.notes == (
        "refused: base: output is protected and never changed",
        "refused: base: 'speed' is no parameter; valid: rate, batch, mode",
        "base: batch: 99 lowered to its highest value, 8",
        "refused: base: mode: 'worst' is none of plain, better",
        "refused: key: output is protected and never changed",
        "refused: key: 'speed' is no parameter; valid: rate, batch, mode",
        "refused: key mode: at most 2 parameters are tuned first",
    )


async def test_without_a_valid_key_the_usual_ones_are_tuned(brief: Brief, tuned: Made) -> None:
    agent, _ = tuned(said(start(keys=["speed"], parameter="speed", base="none")))
    made = (await play(agent, brief_of(brief, PLAN), 1, bowl)).experiments[0].hypothesis
    assert made.plan["keys"] == ["batch", "rate", "mode"]
    assert "refused: base: it is no object with parameters and values" in made.notes


async def test_a_base_that_is_worse_is_left_again(brief: Brief, tuned: Made) -> None:
    agent, _ = tuned(said(start(base={"batch": 1}), value("rate", 2e-5), value("rate", 3e-5)))
    trace = await play(agent, brief_of(brief, PLAN), 2, lambda p: 0.1 if p["batch"] == 1 else bowl(p))
    assert [e.hypothesis.params["batch"] for e in trace.experiments] == [1, 4]
    assert trace.experiments[1].hypothesis.parent is None


async def test_a_reply_without_its_form_is_asked_for_again(brief: Brief, tuned: Made) -> None:
    replies = [
        {"role": "propose", "turn": 0, "text": "A rate of 1e-4 would be nice."},
        {"role": "propose", "turn": 1, "text": fenced({"keys": "rate", "value": 1e-4, "parameter": "rate"})},
        {"role": "propose", "text": start()},
    ]
    agent, backend = tuned(replies)
    made = (await play(agent, brief_of(brief, PLAN), 1, bowl)).experiments[0].hypothesis
    assert made.params["rate"] == 1e-4
    assert len(backend.requests) == 3
    assert "it holds no JSON object" in backend.requests[1].messages[-1].content
    assert "keys: input should be a valid array" in backend.requests[2].messages[-1].content


async def test_prose_marks_the_loop_costs_no_round_and_several_stop_the_run(brief: Brief, tuned: Made) -> None:
    tuning = brief_of(brief, PLAN)
    agent, _ = tuned(said(start(), "I would rather not.", value("rate", 2e-4), "No."))
    trace = await play(agent, tuning, 3, bowl)
    assert "propose: no usable reply in 3 tries" in trace.experiments[1].hypothesis.abandoned
    assert places(trace) == [(1, "rate", 1), (1, "rate", 2)]
    trace = await play(agent, tuning, 3, bowl, trace)
    assert all(experiment.hypothesis.abandoned for experiment in trace.experiments[3:])
    with pytest.raises(AgentUnavailable, match="no usable proposal in 4 loops in a row"):
        await play(agent, tuning, 1, bowl, trace)


async def test_prose_in_the_first_loop_leaves_the_plan_to_the_next(brief: Brief, tuned: Made) -> None:
    agent, backend = tuned(said("Let us think.", start()))
    trace = await play(agent, brief_of(brief, PLAN), 2, bowl)
    assert trace.experiments[1].hypothesis.plan["keys"] == ["rate", "batch"]
    assert "This is the first round." in backend.requests[-1].messages[-1].content


def session(path: Path, model: Path, **limits: int) -> str:
    calls = Calls()
    agent = LlmUnivariateAgent(LlmAdviser(client(Counting(model), calls, model.parent, lambda note: None)))
    scenario = noop(model.parent, items=100, plan="univariate", rounds=2)
    return drive(path, scenario, agent, limits=Limits(**limits), calls=calls).limit


def test_a_run_resumed_after_every_step_is_the_same(tmp_path: Path) -> None:
    model = tmp_path / "model.yaml"
    texts = (
        start(keys=["x", "mode"], parameter="x", value=0.4), value("x", 0.8), "prose", value("output", "a"),
        value("x", 0.6),
    )  # fmt: skip
    model.write_text(yaml.safe_dump({"replies": said(*texts)}))
    session(tmp_path / "whole", model, loop_n=6)
    sessions = 0
    while session(tmp_path / "pieces", model, loop_n=6, step_n=1):
        sessions += 1
    assert sessions >= 24
    assert story(tmp_path / "pieces") == story(tmp_path / "whole")
    state = RunFolder(tmp_path / "whole").state()
    assert [e.hypothesis.plan.get("key") for e in state.experiments] == ["x", "x", None, "mode", "x", "x"]
    scored = [e.feedback for e in state.experiments if e.validation is not None]
    assert all(feedback is not None and feedback.next == "then 2" for feedback in scored)
    assert all(feedback is not None and "the loss falls" in feedback.observations for feedback in scored)
    calls = [call.role for made in state.calls.values() for call in made]
    assert (calls.count("propose"), calls.count("reflect")) == (5 + 3, 5)
    assert state.baseline_scores["validation"].value > 0


def test_rounds_in_flight_at_once_are_different_and_counted(tmp_path: Path) -> None:
    agent, options = UnivariateAgent(), EngineOptions(parallel=2)
    drive(tmp_path / "run", noop(tmp_path, plan="univariate"), agent, limits=Limits(loop_n=6), options=options)
    found = [e.hypothesis for e in RunFolder(tmp_path / "run").state().experiments]
    assert len({repr(h.params) for h in found}) == 6
    assert [h.plan["round"] for h in found[:3]] == [1, 2, 3]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0.05, 0.95)), max_size=8), st.integers(0, 3))
async def test_the_same_trace_and_seed_give_the_same_proposal(values: list[float | None], seed: int) -> None:
    tuning = brief_of(plain_brief(), PLAN)
    ends = iter(values)
    trace = await play(UnivariateAgent(), tuning, len(values), lambda _: next(ends), start_of(tuning, bowl, seed))
    first, again = [await UnivariateAgent().propose(tuning, trace) for _ in range(2)]
    assert first == again
    assert not first.abandoned
    assert all(p.low <= first.params[p.name] <= p.high for p in SPACE if p.low is not None and p.high is not None)
    assert first.params["output"] == "out"


def plain_brief() -> Brief:
    return noop(Path()).brief()


def test_an_abandoned_hypothesis_is_no_place(brief: Brief) -> None:
    abandoned = Experiment(0, Hypothesis("no usable proposal", "-", abandoned="-"), failure="-")
    assert rounds.decided(Trace(1, 0, brief.direction, None, (abandoned,))) is None
