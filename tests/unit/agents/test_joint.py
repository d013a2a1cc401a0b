"""All parameters at once: samplers, constraints, several objectives, rules for stopping early."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftagent.agents.scripted import Act, ScriptedAgent
from ftagent.agents.tuning.joint import JointAgent
from ftagent.agents.tuning.samplers import SAMPLERS
from ftagent.agents.tuning.trials import best_of, known_of
from ftagent.agents.tuning.univariate import UnivariateAgent
from ftagent.core.engine import EngineOptions
from ftagent.core.errors import RequestError
from ftagent.core.events import Limits
from ftagent.core.policy import PolicyOptions
from ftagent.core.run_folder import RunFolder
from ftagent.core.search_plan import Constraint, Halving, Objective, SearchPlan
from ftagent.core.types import Brief, Execution, Experiment, Hypothesis, Parameter, Score, Split, StageRecord, Trace
from ftagent.environments.local import LocalEnvironment
from ftagent_noop.scenario import NoopScenario
from support import drive, noop, story
from support.tuning import SPACE, brief_of, play, scored, start_of

DEFAULTS = {p.name: p.default for p in SPACE}


def bowl(params: Mapping[str, Any]) -> float:
    """Best at rate 1e-4, batch 6, mode better."""
    rate = (math.log10(params["rate"]) + 4) ** 2
    return 0.9 - 0.1 * rate - 0.01 * (params["batch"] - 6) ** 2 - (0.1 if params["mode"] == "plain" else 0.0)


def valid(params: Mapping[str, Any]) -> bool:
    numbers = 1e-6 <= params["rate"] <= 1e-3 and params["batch"] in range(1, 9)
    return numbers and params["mode"] in ("plain", "better") and params["output"] == "out"


@pytest.mark.parametrize("sampler", SAMPLERS)
async def test_each_sampler_stays_in_the_space_and_repeats_itself_from_the_trace(brief: Brief, sampler: str) -> None:
    plan = SearchPlan("joint", sampler)
    tuning = brief_of(brief, plan)
    trace = await play(JointAgent(plan), tuning, 9, bowl)
    found = [experiment.hypothesis for experiment in trace.experiments]
    assert all(valid(hypothesis.params) for hypothesis in found)
    assert len({repr(hypothesis.params) for hypothesis in found}) == 9
    for loop in (0, 4, 8):
        before = replace(trace, loop=loop, experiments=trace.experiments[:loop])
        assert await JointAgent(plan).propose(tuning, before) == found[loop]
    other = await play(JointAgent(plan), tuning, 1, bowl, start_of(tuning, bowl, seed=1))
    assert other.experiments[0].hypothesis.params != found[0].params


@pytest.mark.parametrize(("sampler", "loops"), [("auto", 20), ("tpe", 20), ("gp", 16), ("cmaes", 60)])
async def test_a_sampler_learns_from_the_trials(brief: Brief, sampler: str, loops: int) -> None:
    """Of its last ten points, at least four are among the best fifth of the space."""
    space = tuple(replace(p, default=5e-4) if p.name == "rate" else p for p in SPACE if p.name in ("rate", "batch"))

    def steep(params: Mapping[str, Any]) -> float:
        return 0.9 - 0.2 * abs(math.log10(params["rate"]) + 5.5) - 0.01 * (params["batch"] - 6) ** 2

    plan = SearchPlan("joint", sampler)
    tuning = brief_of(brief, plan, space)
    trace = await play(JointAgent(plan), tuning, loops, steep, start_of(tuning, steep))
    late = [steep(experiment.hypothesis.params) for experiment in trace.experiments[-10:]]
    rates = [10 ** (-6 + 3 * i / 99) for i in range(100)]
    everywhere = sorted(steep({"rate": rate, "batch": batch}) for rate in rates for batch in range(1, 9))
    assert sum(value > everywhere[640] for value in late) >= 4


async def test_the_hypothesis_says_what_changes_and_on_what_evidence(brief: Brief) -> None:
    plan = SearchPlan("joint")
    trace = await play(JointAgent(plan), brief_of(brief, plan), 2, lambda p: None if p["batch"] == 4 else bowl(p),
                       start_of(brief_of(brief, plan), bowl))  # fmt: skip
    first, second = (experiment.hypothesis for experiment in trace.experiments)
    changed = [name for name, value in first.params.items() if value != DEFAULTS[name]]
    assert all(f"{name} " in first.title and " → " in first.title for name in changed)
    assert first.reason.startswith("the joint model chose this point from 1 trial (1 measured); on the default")
    assert "2 trials" in second.reason


def test_a_whole_run_is_the_same_after_stops(tmp_path: Path) -> None:
    def session(path: Path, **limits: int) -> str:
        scenario = noop(tmp_path, items=100, plan="joint", sampler="tpe")
        return drive(path, scenario, JointAgent(SearchPlan("joint", "tpe")), limits=Limits(**limits)).limit

    session(tmp_path / "whole", loop_n=4)
    while session(tmp_path / "pieces", loop_n=4, step_n=3):
        pass
    assert story(tmp_path / "pieces") == story(tmp_path / "whole")
    found = [e.hypothesis.params for e in RunFolder(tmp_path / "whole").state().experiments]
    assert all(params["output"] == "out" for params in found)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (SearchPlan("joint", "best"), "sampler 'best': no such sampler; valid: auto, tpe, gp, cmaes, random"),
        (SearchPlan("joint", "cmaes", objectives=(Objective("latency"),)), "sampler cmaes: knows one objective only"),
    ],
)
def test_an_impossible_plan_is_refused(plan: SearchPlan, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        JointAgent(plan)


def test_a_missing_extra_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cmaes" else real(name))
    with pytest.raises(RequestError, match=r"^sampler cmaes: needs cmaes; `pip install 'ftagent\[hpo\]'` brings it$"):
        JointAgent(SearchPlan("joint", "cmaes"))


def tried(loop: int, params: dict[str, Any], share: float | None, **details: float) -> Experiment:
    """A finished loop of 3 seconds and 200 MB."""
    execution = Execution("train", "ok", 3.0, peak_mb=200.0)
    scores: Any = {} if share is None else {"validation": scored(BRIEF, share, **details)}
    made = Hypothesis("t", "r", params={**DEFAULTS, **params})
    stages = (StageRecord("full", None, 0, execution), StageRecord("predict", "validation", 0, execution))
    return Experiment(loop, made, stages=stages, scores=scores, failure="" if scores else "train: boom")


BRIEF = noop(Path()).brief()


@pytest.mark.parametrize(
    ("constraint", "violation"),
    [
        (Constraint("seconds", 2.0), 0.5),
        (Constraint("seconds", 3.0), 0.0),
        (Constraint("peak_mb", 100.0), 1.0),
        (Constraint("latency", 0.2), 4.0),
        (Constraint("unknown", 1.0), 0.0),
    ],
)
def test_what_exceeds_a_constraint_is_told_and_is_not_the_best(constraint: Constraint, violation: float) -> None:
    tuning = brief_of(BRIEF, SearchPlan("joint", constraints=(constraint,)))
    made = tried(0, {"batch": 8}, 0.9, latency=1.0)
    trace = Trace(1, 0, "maximize", scored(tuning, 0.5, latency=0.1), (made,))
    known = known_of(tuning, trace)
    assert [one.trial.violation for one in known] == pytest.approx([0.0, violation])
    best = best_of(tuning, trace)
    assert best.loop == (None if violation else 0)
    assert best.params["batch"] == (4 if violation else 8)


def test_what_exceeds_a_constraint_is_neither_accepted_nor_recommended(tmp_path: Path) -> None:
    options = EngineOptions(policy=PolicyOptions(constraints=(Constraint("cost", 0.6),)))

    class Costly(NoopScenario):
        """The larger x, the more it costs."""

        async def score(self, predictions: Path, split: Split) -> Score:
            found = await super().score(predictions, split)
            return replace(found, details={"cost": json.loads((predictions / "params.json").read_text())["x"]})

    made = noop(tmp_path, items=400, plan="joint")
    acts = ScriptedAgent([Act({"x": 0.5, "mode": "better"}), Act({"x": 0.7, "mode": "better"})])
    drive(tmp_path / "run", Costly(made.options, made.context), acts, limits=Limits(loop_n=2), options=options)
    state = RunFolder(tmp_path / "run").state()
    first, second = state.experiments
    assert first.validation is not None
    assert second.validation is not None
    assert second.validation.value > first.validation.value + 0.1
    assert second.feedback is not None
    assert second.feedback.decision == "reject"
    assert second.feedback.reason == "cost is 0.7, at most 0.6 is allowed"
    assert state.selected is not None
    assert state.selected.loop == 0


def test_the_seconds_and_the_memory_of_the_baseline_count() -> None:
    plan = SearchPlan("joint", constraints=(Constraint("seconds", 4.0),), objectives=(Objective("peak_mb"),))
    tuning = brief_of(BRIEF, plan)
    execution = Execution("train", "ok", 5.0, peak_mb=300.0)
    trained = (StageRecord("full", None, 0, execution),)
    made = tried(0, {"batch": 8}, 0.4)
    trace = Trace(1, 0, "maximize", scored(tuning, 0.5), (made,), baseline_stages=trained)
    known = known_of(tuning, trace)
    assert known[0].objectives == (0.5, 300.0)
    assert known[0].trial.violation == pytest.approx(0.25)
    assert best_of(tuning, trace).loop == 0


class Watching(JointAgent):
    """Keeps the traces that it is shown."""

    def __init__(self, plan: SearchPlan) -> None:
        super().__init__(plan)
        self.traces: list[Trace] = []

    async def propose(self, brief: Brief, trace: Trace) -> Hypothesis:
        self.traces.append(trace)
        return await super().propose(brief, trace)


def test_a_configuration_that_is_the_baseline_is_trained_and_its_seconds_are_seen(tmp_path: Path) -> None:
    agent = Watching(SearchPlan("joint"))
    scenario = noop(tmp_path, stages=1, plan="joint", items=50)
    drive(tmp_path / "run", scenario, agent, LocalEnvironment(), limits=Limits(loop_n=2))
    drive(tmp_path / "run", scenario, agent, LocalEnvironment(), limits=Limits(loop_n=3))
    names = [[(one.purpose, one.split, one.execution.stage) for one in trace.baseline_stages] for trace in agent.traces]
    assert names == [[("full", None, "work")]] * 3
    assert agent.traces[0].baseline_stages[0].execution.seconds > 0


async def test_the_univariate_agent_goes_on_from_what_keeps_the_constraints() -> None:
    plan = SearchPlan("univariate", priority=("batch", "rate"), constraints=(Constraint("memory", 5.0),))
    tuning = brief_of(BRIEF, plan)
    made = [tried(loop, {"batch": batch}, 0.5 + batch / 20, memory=batch) for loop, batch in enumerate((6, 5, 8))]
    plans = [
        {"mode": "univariate", "key": "batch", "round": n, "pass": 1, "keys": ["batch", "rate"]} for n in (1, 2, 3)
    ]
    known = tuple(
        replace(one, hypothesis=replace(one.hypothesis, plan=plan)) for one, plan in zip(made, plans, strict=True)
    )
    trace = Trace(3, 0, "maximize", scored(tuning, 0.5, memory=4.0), known)
    hypothesis = await UnivariateAgent().propose(tuning, trace)
    assert hypothesis.params["batch"] == 5
    assert hypothesis.parent == 1


@pytest.mark.parametrize("sampler", ["tpe", "gp", "auto", "random"])
async def test_samplers_take_constraints_and_several_objectives(sampler: str) -> None:
    plan = SearchPlan("joint", sampler, objectives=(Objective("latency"),), constraints=(Constraint("latency", 9.0),))
    tuning = brief_of(BRIEF, plan)
    known = tuple(
        tried(n, {"rate": 10 ** (-6 + n / 3), "batch": 1 + n % 8}, None if n == 3 else 0.1 * n, latency=float(n))
        for n in range(8)
    )
    trace = Trace(8, 0, "maximize", scored(tuning, 0.5, latency=1.0), known)
    told = [one.objectives for one in known_of(tuning, trace)]
    assert told[0] == (0.5, 1.0)
    assert told[3] == (pytest.approx(0.2), 2.0)
    assert told[4] == ()
    hypothesis = await JointAgent(plan).propose(tuning, trace)
    assert valid(hypothesis.params)


async def test_a_constraint_keeps_tpe_from_where_it_is_exceeded() -> None:
    """Large batches score best and are all over the limit."""
    space, shares = (replace(SPACE[1], high=80),), []
    for constraints in ((), (Constraint("memory", 30.0),)):
        plan = SearchPlan("joint", "tpe", constraints=constraints)
        tuning = brief_of(BRIEF, plan, space)
        known = tuple(tried(n, {"batch": 1 + 10 * (n % 8)}, 0.1 + n % 8 / 10, memory=10.0 * (n % 8)) for n in range(24))
        start = Trace(24, 0, "maximize", scored(tuning, 0.4, memory=4.0), known)
        found = [(await JointAgent(plan).propose(tuning, replace(start, seed=seed))).params for seed in range(20)]
        shares.append(sum(params["batch"] <= 35 for params in found))
    assert shares[1] > shares[0] + 5


def stopped(loop: int, params: dict[str, Any], curve: tuple[tuple[int, float], ...]) -> Experiment:
    execution = Execution("train", "failed", 1.0, detail="stopped early: accuracy 0.2 at step 10, 0.4 is needed")
    made = tried(loop, params, None)
    return replace(made, stages=(StageRecord("full", None, 0, execution),), curve=curve, failure="train: stopped early")


CURVES = tuple(
    replace(tried(n, {"batch": 1 + n}, 0.4 + n / 10), curve=tuple((step, (0.4 + n / 10) * step / 100)
            for step in range(10, 101, 10)))
    for n in range(4)
)  # fmt: skip


def test_trials_that_were_stopped_are_known() -> None:
    tuning = brief_of(BRIEF, SearchPlan("joint"))
    trace = Trace(5, 0, "maximize", scored(tuning, 0.5), (*CURVES, stopped(4, {"batch": 7}, ((10, 0.2),))))
    states = [one.state for one in known_of(tuning, trace)]
    assert states == ["finished"] * 5 + ["stopped"]
    assert known_of(tuning, trace)[-1].trial.stopped
    assert known_of(tuning, trace)[-1].trial.curve == ((10, 0.2),)


@pytest.mark.parametrize("sampler", ["auto", "tpe", "gp", "cmaes", "random"])
async def test_samplers_go_on_after_a_stopped_trial(sampler: str) -> None:
    plan = SearchPlan("joint", sampler, halving=Halving("accuracy"))
    tuning = brief_of(BRIEF, plan)
    more = tuple(replace(one, loop=5 + n) for n, one in enumerate(CURVES[:2]))
    known = (*CURVES, stopped(4, {"batch": 7}, ((10, 0.2), (20, 0.3))), *more)
    trace = Trace(7, 0, "maximize", scored(tuning, 0.5), known)
    assert valid((await JointAgent(plan).propose(tuning, trace)).params)


@pytest.mark.parametrize("agent", [UnivariateAgent(), JointAgent(SearchPlan("joint"))], ids=["univariate", "joint"])
async def test_the_rules_for_stopping_early_are_among_the_files(agent: UnivariateAgent | JointAgent) -> None:
    plan = SearchPlan(halving=Halving("accuracy", 2.0, 2), stopping_file="rules/stopping.json")
    tuning = brief_of(BRIEF, plan)
    hypothesis = Hypothesis("t", "r", params=DEFAULTS)
    none = await agent.code(tuning, Trace(0, 0, "maximize", scored(tuning, 0.5)), hypothesis)
    document = json.loads(none["rules/stopping.json"])
    assert document["rungs"] == []
    assert document["rule"].startswith("no trial is stopped")
    files = await agent.code(tuning, Trace(4, 0, "maximize", scored(tuning, 0.5), CURVES), hypothesis)
    document = json.loads(files["rules/stopping.json"])
    assert set(document) == {"metric", "direction", "rungs", "rule"}
    assert (document["metric"], document["direction"]) == ("accuracy", "maximize")
    assert [rung["step"] for rung in document["rungs"]] == [30, 50]
    best = CURVES[-1].curve[4][1]
    assert 0 < document["rungs"][1]["needs"] <= best
    assert "its accuracy is not among the best 1/2 of the trials seen there" in document["rule"]
    assert files["params.json"] == repr(DEFAULTS)
    assert set(await agent.code(brief_of(BRIEF, SearchPlan()), Trace(0, 0, "maximize", None), hypothesis)) == {
        "params.json"
    }


@pytest.mark.parametrize("sampler", SAMPLERS)
async def test_a_small_space_is_tried_once_and_then_there_is_nothing_more(brief: Brief, sampler: str) -> None:
    plan = SearchPlan("joint", sampler)
    space = (SPACE[2], Parameter("size", "int", default=1, low=1, high=3), SPACE[3])
    tuning = brief_of(brief, plan, space)
    trace = await play(JointAgent(plan), tuning, 6, lambda params: 0.5 + 0.1 * params["size"])
    found = [experiment.hypothesis for experiment in trace.experiments]
    assert len({repr(hypothesis.params) for hypothesis in found[:5]}) == 5
    assert [hypothesis.abandoned for hypothesis in found] == [""] * 5 + ["every configuration was tried"]


async def test_without_anything_tunable_the_loop_says_so() -> None:
    plan = SearchPlan("joint")
    tuning = brief_of(BRIEF, plan, SPACE[3:])
    trace = Trace(0, 0, "maximize", scored(tuning, 0.5))
    assert (await JointAgent(plan).propose(tuning, trace)).abandoned == "no parameter is tunable"


def test_what_a_trial_was_measured_with_is_known_and_built_on() -> None:
    tuning = brief_of(BRIEF, SearchPlan("joint"))
    made = tried(0, {"batch": 8}, 0.9)
    score = replace(made.scores["validation"], adjusted={"batch": 2.0, "unknown": 1.0})
    trace = Trace(1, 0, "maximize", scored(tuning, 0.5), (replace(made, scores={"validation": score}),))
    known = known_of(tuning, trace)
    assert [(one.trial.params["batch"], one.trial.value, one.again) for one in known[1:]] == [
        (8, score.value, False),
        (2, score.value, True),
    ]
    assert best_of(tuning, trace).params["batch"] == 2
