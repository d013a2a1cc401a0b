"""The llm agent: what it makes of replies, what it refuses, what it does when there is no usable one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from ftagent.agents.llm import LlmAgent
from ftagent.core.errors import AgentUnavailable, NoUsableReply
from ftagent.core.types import Brief, Experiment, Feedback, Hypothesis, Outcome, Parameter, Trace
from support import traces
from unit.agents.conftest import coding, proposal, reflection
from unit.llm.conftest import Counting

Made = Callable[..., tuple[LlmAgent, Counting]]


def trace_of(brief: Brief) -> Trace:
    """Loops 0 and 1 are scored, loop 2 failed, loop 3 was abandoned."""
    known = traces.trace(brief, 2).experiments
    failed = replace(
        traces.experiment(2, brief, Random(2), known[0], known[0].files), scores={}, failure="train: exit code 1: boom"
    )
    abandoned = Experiment(3, Hypothesis("no usable proposal", "-", abandoned="-"), failure="-")
    return Trace(4, 0, brief.direction, traces.trace(brief, 0).baseline, (*known, failed, abandoned))


async def test_a_proposal_becomes_a_hypothesis(brief: Brief, made: Made) -> None:
    trace = trace_of(brief)
    agent, _ = made([{"role": "propose", "text": proposal(kind="improve", parent=1, params={"x": 0.7})}])
    hypothesis = await agent.propose(brief, trace)
    assert hypothesis == Hypothesis(
        "a title", "a reason", 1, "improve", "+0.01", {**trace.experiments[1].hypothesis.params, "x": 0.7}, "the loss"
    )


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"kind": "improve", "parent": None}, "draft"),
        ({"kind": "draft", "parent": 1}, "improve"),
        ({"kind": "debug", "parent": 1}, "improve"),
        ({"kind": "debug", "parent": 2}, "debug"),
    ],
)
async def test_the_kind_follows_the_parent(brief: Brief, made: Made, given: dict[str, Any], kind: str) -> None:
    agent, backend = made([{"role": "propose", "text": proposal(**given)}])
    hypothesis = await agent.propose(brief, trace_of(brief))
    assert (hypothesis.kind, hypothesis.parent) == (kind, given["parent"])
    assert len(backend.requests) == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"parent": 7}, "parent: 7 cannot be built on; null or one of the scored loops 0, 1, or to mend one of the "
                        "failed loops 2"),
        ({"parent": 3, "kind": "debug"}, "parent: 3 cannot be built on"),
        ({"parent": 2, "kind": "improve"}, "parent: loop 2 failed, only kind debug can mend it"),
        ({"params": {"x": 1.5}}, "params.x: must be a number from 0.0 to 1.0 (given: 1.5)"),
        ({"params": {"x": True}}, "params.x: must be a number from 0.0 to 1.0"),
        ({"params": {"mode": "best"}}, "params.mode: must be one of plain, better"),
        ({"params": {"moed": "plain"}}, "'moed' is no parameter; did you mean 'mode'? valid: x, mode"),
        ({"params": {"network": True, "budget_usd": 1000}}, "'network' is no parameter; valid: x, mode"),
        ({"title": " "}, "title: one line of 1 to 200 characters is wanted, this has 0"),
        ({"kind": "win"}, "kind: input should be 'draft', 'improve' or 'debug'"),
    ],
)  # fmt: skip
async def test_a_wrong_proposal_is_repaired(brief: Brief, made: Made, given: dict[str, Any], told: str) -> None:
    wrong, right = {"role": "propose", "turn": 0}, {"role": "propose", "turn": 1}
    agent, backend = made([{**wrong, "text": proposal(**given)}, {**right, "text": proposal(title="right")}])
    hypothesis = await agent.propose(brief, trace_of(brief))
    assert hypothesis.title == "right"
    assert told in backend.requests[1].messages[-1].content


async def test_no_usable_proposal_costs_a_loop_and_several_stop_the_run(brief: Brief, made: Made) -> None:
    agent, backend = made([{"role": "propose", "text": "I would rather not."}])
    trace = Trace(0, 0, brief.direction, None)
    for loop in range(3):
        hypothesis = await agent.propose(brief, replace(trace, loop=loop))
        assert "propose: no usable reply in 3 tries" in hypothesis.abandoned
        assert (hypothesis.title, hypothesis.reason) == ("no usable proposal", hypothesis.abandoned)
        failed = Experiment(loop, hypothesis, failure=hypothesis.abandoned)
        trace = replace(trace, experiments=(*trace.experiments, failed))
    with pytest.raises(AgentUnavailable, match=r"no usable proposal in 4 loops in a row .*`--from 3:propose`"):
        await agent.propose(brief, replace(trace, loop=3))
    assert len(backend.requests) == 12
    other, _ = made([{"role": "propose", "text": proposal()}])
    assert (await other.propose(brief, replace(trace, loop=3))).abandoned == ""


async def test_an_abandoned_loop_is_nothing_to_debug(brief: Brief, made: Made) -> None:
    agent, backend = made([{"role": "propose", "text": proposal()}])
    abandoned = Experiment(0, Hypothesis("no usable proposal", "-", abandoned="secret-why"), failure="secret-why")
    await agent.propose(brief, Trace(1, 0, brief.direction, None, (abandoned,)))
    asked = backend.requests[0].messages[-1].content
    assert "Suggested by the search policy: draft" in asked
    assert "1 without a proposal" in asked
    assert "secret-why" not in asked


async def test_code_may_be_parameters_alone(brief: Brief, made: Made) -> None:
    hypothesis = Hypothesis("t", "r", params={"x": 0.3, "mode": "better"})
    trace = Trace(0, 0, brief.direction, None)
    agent, _ = made([{"role": "code", "text": coding(use_template=True)}])
    assert await agent.code(brief, trace, hypothesis) == brief.render(hypothesis.params)
    agent, _ = made([{"role": "code", "text": coding({"a.py": "x = 1\n"}, use_template=True, params={"x": 0.5})}])
    files = await agent.code(brief, trace, hypothesis)
    assert files == {**brief.render({"x": 0.5, "mode": "better"}), "a.py": "x = 1\n"}


async def test_files_replace_those_of_the_parent(brief: Brief, made: Made) -> None:
    trace = trace_of(brief)
    hypothesis = Hypothesis("t", "r", parent=1, kind="improve")
    agent, backend = made([{"role": "code", "text": coding({"extra/a.py": "x = 1\n"})}])
    files = await agent.code(brief, trace, hypothesis)
    assert files == {**trace.experiments[1].files, "extra/a.py": "x = 1\n"}
    assert trace.experiments[1].files["params.json"].strip() in backend.requests[0].messages[-1].content


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (coding(use_template=False), "it holds no file; give the files, or use_template: true"),
        (coding({"a.py": "x = 1\n"}), "params.json: not given; give it, or use_template: true"),
        (coding({"../../run.json": "{}"}), "file name '../../run.json' contains `..`; names stay inside"),
        (coding({"/etc/passwd": "x"}), "file name '/etc/passwd' is absolute"),
        (coding(use_template=True, params={"time_limit": 0}), "'time_limit' is no parameter"),
    ],
)
async def test_unusable_files_are_repaired(brief: Brief, made: Made, wrong: str, told: str) -> None:
    brief = replace(brief, required_files=("params.json",))
    right = coding({"params.json": "{}"})
    agent, backend = made([{"role": "code", "turn": turn, "text": text} for turn, text in enumerate((wrong, right))])
    files = await agent.code(brief, Trace(0, 0, brief.direction, None), Hypothesis("t", "r"))
    assert files == {"params.json": "{}\n"}
    assert told in backend.requests[1].messages[-1].content


async def test_code_without_a_usable_reply_fails_the_experiment(brief: Brief, made: Made) -> None:
    agent, _ = made([{"role": "code", "text": "no"}])
    with pytest.raises(NoUsableReply):
        await agent.code(brief, Trace(0, 0, brief.direction, None), Hypothesis("t", "r"))


async def test_a_repair_keeps_what_it_does_not_change(brief: Brief, made: Made) -> None:
    experiment, failure = traces.failed_experiment(brief)
    agent, backend = made([{"role": "repair", "text": coding({"b.py": "y = 2\n"}, diagnosis="a key")}])
    files = await agent.repair(brief, experiment, failure)
    assert files == {**experiment.files, "b.py": "y = 2\n"}
    (request,) = backend.requests
    assert (request.place.loop, request.place.step, request.place.attempt) == (3, "code", 2)
    asked = request.messages[-1].content
    assert "KeyError: 'answers'" in asked
    assert "attempt 0: prepare_data: exit code 1: KeyError: 'question'" in asked


def last(brief: Brief) -> tuple[Trace, Experiment, Outcome]:
    whole = traces.trace(brief, 3)
    return replace(whole, experiments=whole.experiments[:2]), whole.experiments[2], traces.outcome(whole.experiments[2])


async def test_reflection_adds_to_what_is_computed(brief: Brief, made: Made) -> None:
    trace, experiment, outcome = last(brief)
    said = reflection(
        observations=["short answers are learnt first"],
        error_categories=[{"category": "no_answer", "cause": "the mark is missing"}],
        hypothesis_held="no",
        decision="accept",
    )
    agent, backend = made([{"role": "reflect", "text": said}])
    feedback = await agent.reflect(brief, trace, experiment, outcome)
    assert (feedback.decision, feedback.reason, feedback.next) == (outcome.decision, outcome.reason, "more")
    assert "of the baseline" in feedback.observations[0]
    assert feedback.observations[-3:] == (
        "no_answer: the mark is missing", "short answers are learnt first", "the hypothesis did not hold")  # fmt: skip
    assert feedback.observations[0] in backend.requests[0].messages[-1].content


async def test_without_a_usable_reflection_the_computed_one_stays(brief: Brief, made: Made) -> None:
    agent, backend = made([{"role": "reflect", "text": "fine, I guess"}])
    trace, experiment, outcome = last(brief)
    feedback = await agent.reflect(brief, trace, experiment, outcome)
    assert "of the baseline" in feedback.observations[0]
    assert feedback.observations[-1].startswith("these observations are computed: the model gave no usable reflection")
    assert feedback.next
    assert len(backend.requests) == 3


async def test_nobody_is_asked_about_a_loop_without_a_proposal(brief: Brief, made: Made) -> None:
    agent, backend = made([])
    abandoned = Experiment(0, Hypothesis("no usable proposal", "-", abandoned="no"), failure="no")
    outcome = Outcome(None, "no", "failed", "no")
    feedback = await agent.reflect(brief, Trace(0, 0, brief.direction, None), abandoned, outcome)
    assert isinstance(feedback, Feedback)
    assert backend.requests == []


async def test_a_model_that_follows_schemas_gets_one_with_the_space(brief: Brief, made: Made) -> None:
    agent, backend = made([{"role": "propose", "text": proposal().strip("`json\n")}], follows_schema=True)
    await agent.propose(brief, Trace(0, 0, brief.direction, None))
    schema = backend.requests[0].schema
    assert schema is not None
    params = schema["$defs"]["Params"]
    assert params["properties"]["x"] == {"type": ["number", "null"], "minimum": 0.0, "maximum": 1.0}
    assert params["properties"]["mode"] == {"enum": ["plain", "better", None], "type": ["string", "null"]}
    assert params["additionalProperties"] is schema["additionalProperties"] is False


async def test_a_parameter_may_have_any_name_and_kind(brief: Brief, made: Made) -> None:
    space = (
        Parameter("model.lr", "float", default=0.1, low=0.0, high=1.0),
        Parameter("json", "int", default=1, low=1, high=9),
        Parameter("_odd", "choice", default=0, choices=(0, 1, False, "none")),
    )
    brief = replace(brief, space=space, render=lambda params: {"a": str(dict(params))})
    given = {"model.lr": "5e-2", "json": 3.0, "_odd": False}
    agent, _ = made([{"role": "propose", "text": proposal(params=given)}])
    params = (await agent.propose(brief, Trace(0, 0, brief.direction, None))).params
    assert params == {"model.lr": 0.05, "json": 3, "_odd": False}
    assert params["_odd"] is False
