"""The hybrid agent: what a model may narrow, what is dropped, when it is asked, and that numbers stay inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftagent.agents.hybrid import HybridAgent
from ftagent.agents.tuning.samplers import SAMPLERS
from ftagent.core.calls import Calls
from ftagent.core.check import static_check
from ftagent.core.search_plan import SearchPlan
from ftagent.core.types import Brief
from support.tiny_scenario import tiny_scenario
from support.tuning import SPACE, brief_of, play, start_of
from unit.agents.conftest import fenced
from unit.llm.conftest import Counting, client

PLAN = SearchPlan("joint")
Made = Callable[..., tuple[HybridAgent, Counting]]


def bowl(params: Mapping[str, Any]) -> float:
    rate = (math.log10(params["rate"]) + 4) ** 2
    return 0.9 - 0.1 * rate - 0.01 * (params["batch"] - 6) ** 2 - (0.1 if params["mode"] == "plain" else 0.0)


def structure(**changes: Any) -> str:
    made = {"important": [], "ranges": [], "choices": [], "fixed": [], "why": "the evidence"}
    return fenced({**made, **changes})


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """`made({loop: reply}, plan=…)`: the agent, and the backend that counts what it asks."""

    def make(replies: Mapping[int, str], plan: SearchPlan = PLAN) -> tuple[HybridAgent, Counting]:
        path = tmp_path / "model.yaml"
        said = [{"role": "propose", "loop": loop, "text": text} for loop, text in replies.items()]
        path.write_text(yaml.safe_dump({"replies": said}))
        backend = Counting(path)
        return HybridAgent(client(backend, Calls(), tmp_path, print), plan), backend

    return make


NARROW = structure(
    important=["rate", "batch"], ranges=[{"parameter": "rate", "low": 5e-5, "high": 5e-4}],
    fixed=[{"parameter": "mode", "value": "better"}],
)  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS)
async def test_the_numbers_lie_inside_what_the_model_left(brief: Brief, made: Made, sampler: str) -> None:
    plan = SearchPlan("joint", sampler)
    agent, backend = made({0: NARROW}, plan)
    trace = await play(agent, brief_of(brief, plan), 5, bowl)
    found = [experiment.hypothesis.params for experiment in trace.experiments]
    assert all(5e-5 <= params["rate"] <= 5e-4 and params["mode"] == "better" for params in found)
    assert all(params["output"] == "out" for params in found)
    assert len({params["batch"] for params in found}) > 1
    assert len(backend.requests) == 1
    first = trace.experiments[0].hypothesis
    assert first.params == {"rate": 5e-5, "batch": 4, "mode": "better", "output": "out"}
    assert first.reason.startswith("the best configuration, moved inside, in the space that the model narrowed: ")
    assert "varied: rate, batch; rate from 5e-05 to 0.0005; mode fixed at better (the evidence)" in first.reason
    assert " chose this point from 2 trials (2 measured), in the space" in trace.experiments[1].hypothesis.reason
    assert trace.experiments[0].files["params.json"] == repr(found[0])


async def test_it_is_asked_again_every_five_loops_with_the_results(brief: Brief, made: Made) -> None:
    later = structure(ranges=[{"parameter": "batch", "low": 5, "high": 7}], why="six is best")
    agent, backend = made({0: NARROW, 5: later, 10: structure()})
    tuning = brief_of(brief, PLAN)
    trace = await play(agent, tuning, 11, bowl)
    assert [request.place.loop for request in backend.requests] == [0, 5, 10]
    found = [experiment.hypothesis for experiment in trace.experiments]
    assert all(5 <= hypothesis.params["batch"] <= 7 for hypothesis in found[5:10])
    assert [loop for loop, hypothesis in enumerate(found) if "structure" in hypothesis.plan] == [0, 5, 10]
    asked = backend.requests[1].messages[-1].content
    assert "loop 4" in asked
    assert "rate from 5e-05 to 0.0005" in asked
    assert "mode fixed at better" in asked
    again, other = made({5: later})
    assert await again.propose(tuning, replace(trace, loop=5, experiments=trace.experiments[:5])) == found[5]
    assert await again.propose(tuning, replace(trace, loop=7, experiments=trace.experiments[:7])) == found[7]
    assert len(other.requests) == 1


@pytest.mark.parametrize(
    ("reply", "note"),
    [
        (structure(important=["speed"]), "dropped: important: 'speed' is no parameter; valid: rate, batch, mode"),
        (structure(fixed=[{"parameter": "output", "value": "elsewhere"}]),
         "dropped: fixed: output is protected and never changed"),
        (structure(fixed=[{"parameter": "mode", "value": "best"}]),
         "dropped: fixed: mode: 'best' is none of plain, better"),
        (structure(ranges=[{"parameter": "rate", "low": 1e-3, "high": 1e-5}]),
         "dropped: range: rate: 0.001 to 1e-05 is no range"),
        (structure(ranges=[{"parameter": "rate", "low": "small", "high": 1e-5}]),
         "dropped: range: rate: 'small' is no number"),
        (structure(ranges=[{"parameter": "mode", "low": 0, "high": 1}]),
         "dropped: range: mode has choices, no range"),
        (structure(choices=[{"parameter": "batch", "values": [4]}]),
         "dropped: choices: batch has a range, no choices"),
        (structure(choices=[{"parameter": "mode", "values": ["a"]}]),
         "dropped: choices: mode: none of the values is one of its choices"),
        (structure(fixed=[{"parameter": "mode", "value": "plain"}, {"parameter": "rate", "value": 1e-5},
                          {"parameter": "batch", "value": 3}]), "dropped: fixed: nothing would be left to vary"),
    ],
)  # fmt: skip
async def test_invalid_parts_are_dropped_with_a_note(brief: Brief, made: Made, reply: str, note: str) -> None:
    agent, backend = made({0: reply})
    trace = await play(agent, brief_of(brief, PLAN), 3, bowl)
    first = trace.experiments[0].hypothesis
    assert note in first.notes
    document = first.plan["structure"]
    assert [document[part] for part in ("important", "ranges", "choices", "fixed")] == [[], {}, {}, {}]
    assert len(backend.requests) == 1
    assert all(experiment.hypothesis.params["output"] == "out" for experiment in trace.experiments)


async def test_what_is_outside_a_range_is_clamped_with_a_note(brief: Brief, made: Made) -> None:
    agent, _ = made({0: structure(ranges=[{"parameter": "rate", "low": "1e-5", "high": 1}])})
    first = (await play(agent, brief_of(brief, PLAN), 1, bowl)).experiments[0].hypothesis
    assert first.plan["structure"]["ranges"] == {"rate": [1e-5, 1e-3]}
    assert first.notes == (
        "rate: '1e-5' read as the number 1e-05", "rate: 1 lowered to its highest value, 0.001",
    )  # fmt: skip


async def test_what_is_not_important_keeps_the_best_values(brief: Brief, made: Made) -> None:
    agent, _ = made({0: structure(important=["batch"])})
    trace = await play(agent, brief_of(brief, PLAN), 4, bowl)
    for experiment in trace.experiments:
        assert {**experiment.hypothesis.params, "batch": 4} == {p.name: p.default for p in SPACE}


async def test_a_narrowed_space_without_anything_new_is_left(brief: Brief, made: Made) -> None:
    few = structure(important=["batch"], ranges=[{"parameter": "batch", "low": 5, "high": 6}])
    agent, _ = made({0: few})
    trace = await play(agent, brief_of(brief, PLAN), 4, bowl)
    found = [experiment.hypothesis for experiment in trace.experiments]
    assert sorted(hypothesis.params["batch"] for hypothesis in found[:2]) == [5, 6]
    assert all(h.reason.startswith("the space that the model narrowed has nothing new") for h in found[2:])
    assert len({repr(hypothesis.params) for hypothesis in found}) == 4


async def test_prose_leaves_the_space_as_it_was(brief: Brief, made: Made) -> None:
    agent, backend = made({0: "Everything matters.", 5: NARROW, 10: "Nothing does."})
    trace = await play(agent, brief_of(brief, PLAN), 11, bowl)
    found = [experiment.hypothesis for experiment in trace.experiments]
    assert found[0].notes[0].startswith("the model gave no usable structure, the space stays whole (propose: no usable")
    assert found[10].notes[0].startswith("the model gave no usable structure, the space stays as it was")
    assert found[10].plan["structure"] == found[5].plan["structure"]
    assert not any(hypothesis.abandoned for hypothesis in found)
    assert len(backend.requests) == 3 + 1 + 3


async def test_without_a_plan_the_first_loop_is_the_default_configuration(brief: Brief, made: Made) -> None:
    tuning = brief_of(brief, None)
    agent, backend = made({0: NARROW})
    trace = await play(agent, tuning, 3, bowl, start_of(tuning, bowl))
    first, second, _ = (experiment.hypothesis for experiment in trace.experiments)
    assert first.params == {p.name: p.default for p in SPACE}
    assert "then: varied: rate, batch" in first.reason
    assert 5e-5 <= second.params["rate"] <= 5e-4
    assert second.parent == 0
    assert backend.requests[0].place.loop == 0


async def test_it_works_for_the_llm_scenario_with_files_from_its_templates(tmp_path: Path, made: Made) -> None:
    llm = tiny_scenario(tmp_path).brief()
    reply = structure(important=["learning_rate", "rank"],
                      ranges=[{"parameter": "learning_rate", "low": 1e-3, "high": 2e-3}])  # fmt: skip
    agent, _ = made({0: reply})
    agent.check(llm)
    shares = iter((0.3, 0.4, 0.35))
    trace = await play(agent, llm, 3, lambda params: next(shares), start_of(llm, lambda params: 0.2))
    first, second, third = trace.experiments
    assert first.hypothesis.params == {p.name: llm.baseline_params.get(p.name, p.default) for p in llm.space}
    for experiment in (second, third):
        params = experiment.hypothesis.params
        assert 1e-3 <= params["learning_rate"] <= 2e-3
        changed = {name for name in params if params[name] != first.hypothesis.params[name]}
        assert changed <= {"learning_rate", "rank"}
        assert experiment.files == llm.render(params)
        assert static_check(experiment.files, llm.required_files, frozenset(), llm.reserved_files) is None
