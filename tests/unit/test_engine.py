"""The loop itself: order, resume, rewind, limits, parallel experiments."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ftagent.agents.scripted import Act, ScriptedAgent
from ftagent.agents.search import SearchAgent
from ftagent.core.engine import EngineOptions
from ftagent.core.errors import ScoreUnavailable
from ftagent.core.events import Limits, Place
from ftagent.core.policy import PolicyOptions
from ftagent.core.run_folder import RunFolder
from ftagent.core.search_plan import Constraint
from ftagent.core.state import State
from ftagent.core.statistics import trained_score
from ftagent.core.types import Brief, Feedback, Files, Hypothesis, Score, Split, Trace
from ftagent_noop.scenario import NoopScenario
from support import ACTS, drive, noop, story


def kinds(path: Path) -> list[str]:
    return [kind for kind, _ in story(path)]


def test_a_run_is_baseline_then_loops_then_finish(tmp_path: Path) -> None:
    ended = drive(tmp_path / "run", noop(tmp_path, items=200))
    assert ended.status == "completed"
    loop = ["loop_started", "proposed", "coded", "built", "scored", "ran", "reflected"]
    assert kinds(tmp_path / "run")[:2] == ["created", "scored"]
    assert kinds(tmp_path / "run")[2:23] == loop * 3
    state = RunFolder(tmp_path / "run").state()
    assert state.status == "completed"
    assert state.test_openings == 1
    assert state.selected is not None
    assert state.selected.loop == 2
    assert state.selected.verdict == "improved"
    assert state.selected.split == "test"
    assert (tmp_path / "run/best/files/params.json").is_file()


def test_nothing_better_than_the_baseline_is_said_so(tmp_path: Path) -> None:
    agent = ScriptedAgent([Act({"x": 0.0, "mode": "plain"})])
    drive(tmp_path / "run", noop(tmp_path, items=200, floor=0.6, ceiling=0.6), agent)
    state = RunFolder(tmp_path / "run").state()
    assert state.selected is not None
    assert state.selected.verdict == "tie"


@pytest.mark.parametrize("agent", [ScriptedAgent(ACTS), SearchAgent()], ids=["scripted", "search"])
def test_stopping_after_every_step_changes_nothing(tmp_path: Path, agent: ScriptedAgent | SearchAgent) -> None:
    drive(tmp_path / "whole", noop(tmp_path), agent)
    sessions = 0
    while True:
        ended = drive(tmp_path / "pieces", noop(tmp_path), agent, limits=Limits(loop_n=3, step_n=1))
        sessions += 1
        if ended.status == "completed":
            break
        assert ended.limit == "--step-n"
    assert sessions >= 13
    assert story(tmp_path / "pieces") == story(tmp_path / "whole")


def test_resuming_a_finished_run_adds_nothing_and_more_loops_extend_it(tmp_path: Path) -> None:
    path = tmp_path / "run"
    drive(path, noop(tmp_path))
    before = story(path)
    drive(path, noop(tmp_path))
    assert story(path) == before
    drive(path, noop(tmp_path), limits=Limits(loop_n=4))
    state = RunFolder(path).state()
    assert len(state.experiments) == 4
    assert state.status == "completed"


@pytest.mark.parametrize("step", ["propose", "code", "run", "feedback"])
def test_going_back_drops_what_came_after_and_does_it_again(tmp_path: Path, step: str) -> None:
    path = tmp_path / "run"
    drive(path, noop(tmp_path))
    before = story(path)
    drive(path, noop(tmp_path), place=Place(1, step))  # type: ignore[arg-type]
    after = story(path)
    assert after[: len(before)] == before
    again = after[len(before) :]
    assert again[0] == ("rewound", {"loop": 1, "step": step})
    assert {event["loop"] for kind, event in again if kind == "reflected"} == {1, 2}
    state = RunFolder(path).state()
    assert [e.last_step for e in state.experiments] == ["feedback"] * 3
    first = [e for e in before if e[0] == "reflected"]
    assert [e for e in again if e[0] == "reflected"] == first[1:]


class Sleepy(ScriptedAgent):
    """Later loops are faster, so that experiments end in another order than they were submitted in."""

    async def code(self, brief: Brief, trace: Trace, hypothesis: Hypothesis) -> Files:
        await asyncio.sleep(0.05 / (1 + trace.loop))
        return await super().code(brief, trace, hypothesis)


class Recording(SearchAgent):
    """Remembers what each proposal saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, list[int], int]] = []

    async def propose(self, brief: Brief, trace: Trace) -> Hypothesis:
        assert all(isinstance(e.feedback, Feedback) for e in trace.experiments)
        self.seen.append((trace.loop, [e.loop for e in trace.experiments], len(trace.pending)))
        return await super().propose(brief, trace)

    async def code(self, brief: Brief, trace: Trace, hypothesis: Hypothesis) -> Files:
        await asyncio.sleep(0.03 if trace.loop % 2 == 0 else 0)
        return await super().code(brief, trace, hypothesis)


def test_parallel_results_are_journaled_in_order_of_submission(tmp_path: Path) -> None:
    options = EngineOptions(parallel=3)
    order = []
    for name in ("one", "two"):
        drive(tmp_path / name, noop(tmp_path), Sleepy(ACTS), limits=Limits(loop_n=5), options=options)
        order.append([(k, e["loop"]) for k, e in story(tmp_path / name) if k in ("proposed", "reflected")])
    assert order[0] == order[1]
    assert [loop for kind, loop in order[0] if kind == "reflected"] == [0, 1, 2, 3, 4]


def test_a_parallel_proposal_sees_order_of_submission_not_of_completion(tmp_path: Path) -> None:
    agent = Recording()
    drive(tmp_path / "run", noop(tmp_path), agent, limits=Limits(loop_n=5), options=EngineOptions(parallel=2))
    assert agent.seen == [(0, [], 0), (1, [], 1), (2, [0], 1), (3, [0, 1], 1), (4, [0, 1, 2], 1)]


def test_a_parallel_run_resumes_to_the_same_proposals(tmp_path: Path) -> None:
    def proposals(path: Path) -> list[object]:
        return [e for k, e in story(path) if k in ("proposed", "reflected")]

    options = EngineOptions(parallel=2)
    drive(tmp_path / "whole", noop(tmp_path), SearchAgent(), limits=Limits(loop_n=4), options=options)
    for _ in range(40):
        limits = Limits(loop_n=4, step_n=3)
        ended = drive(tmp_path / "pieces", noop(tmp_path), SearchAgent(), limits=limits, options=options)
        if ended.status == "completed":
            break
    assert sorted(map(str, proposals(tmp_path / "pieces"))) == sorted(map(str, proposals(tmp_path / "whole")))


def test_time_is_a_limit_that_still_finishes(tmp_path: Path) -> None:
    class Slow(ScriptedAgent):
        async def propose(self, brief: Brief, trace: Trace) -> Hypothesis:
            await asyncio.sleep(0 if trace.loop == 0 else 60)
            return await super().propose(brief, trace)

    ended = drive(tmp_path / "run", noop(tmp_path), Slow(ACTS), limits=Limits(loop_n=3, timeout=0.5))
    assert (ended.status, ended.limit) == ("budget", "--timeout")
    state = RunFolder(tmp_path / "run").state()
    assert state.status == "budget"
    assert [e.last_step for e in state.experiments] == ["feedback"]
    assert state.test_openings == 1


def test_files_with_unsafe_names_or_bad_syntax_fail_the_experiment_not_the_run(tmp_path: Path) -> None:
    acts = [Act(files=[{"../x": ""}]), Act(files=[{"a.py": "def"}]), ACTS[2]]
    ended = drive(tmp_path / "run", noop(tmp_path), ScriptedAgent(acts))
    assert ended.status == "completed"
    experiments = RunFolder(tmp_path / "run").state().experiments
    assert "no file that may be written" in experiments[0].failure
    assert "a.py:1" in experiments[1].failure
    assert [e.feedback.decision for e in experiments if e.feedback] == ["failed", "failed", "accept"]
    assert not (tmp_path / "x").exists()


def test_a_repair_is_tried_until_it_works(tmp_path: Path) -> None:
    good = noop(tmp_path).brief().render({"x": 0.7, "mode": "better"})
    acts = [Act(files=[{"a.py": "def"}, {"a.py": "class"}, good])]
    drive(tmp_path / "run", noop(tmp_path), ScriptedAgent(acts), limits=Limits(loop_n=1))
    experiment = RunFolder(tmp_path / "run").state().experiments[0]
    assert experiment.attempts == 3
    assert experiment.failure == ""
    assert experiment.validation is not None


def test_no_test_score_reaches_an_agent(tmp_path: Path) -> None:
    path = tmp_path / "run"
    drive(path, noop(tmp_path))
    trace = RunFolder(path).state().trace(3, 3)
    assert all("test" not in experiment.scores for experiment in trace.experiments)
    assert any("test" in experiment.scores for experiment in RunFolder(path).state().experiments)


def test_the_search_agent_repeats_itself_only_for_equal_seeds(tmp_path: Path) -> None:
    drive(tmp_path / "a", noop(tmp_path), SearchAgent(), limits=Limits(loop_n=6))
    drive(tmp_path / "b", noop(tmp_path), SearchAgent(), limits=Limits(loop_n=6))
    assert story(tmp_path / "a") == story(tmp_path / "b")
    params = [e.hypothesis.params for e in RunFolder(tmp_path / "a").state().experiments]
    assert params[0] == {"x": 0.1, "mode": "plain"}
    assert all(one not in params[:i] for i, one in enumerate(params))


def test_candidates_within_noise_are_measured_again_and_a_clear_loser_is_not(tmp_path: Path) -> None:
    close = ScriptedAgent([Act({"x": 0.69, "mode": "better"}), Act({"x": 0.71, "mode": "better"})])
    drive(tmp_path / "run", noop(tmp_path, items=100), close, limits=Limits(loop_n=2))
    state = RunFolder(tmp_path / "run").state()
    assert all("confirm" in e.scores for e in state.experiments)
    assert "confirm" not in state.baseline_scores


def test_a_baseline_that_is_clearly_ahead_stays_the_best(tmp_path: Path) -> None:
    class Backwards(type(noop(tmp_path))):  # type: ignore[misc]
        def _chance(self, params: object) -> float:
            return 0.1

    scenario = Backwards(noop(tmp_path, items=100).options, noop(tmp_path).context)
    drive(tmp_path / "run", scenario, limits=Limits(loop_n=2))
    state = RunFolder(tmp_path / "run").state()
    assert state.selected is not None
    assert state.selected.loop is None
    assert not (tmp_path / "run/best").exists()


def test_a_limit_ends_a_loop_that_waits_for_one_before_it(tmp_path: Path) -> None:
    class SlowFirst(ScriptedAgent):
        async def code(self, brief: Brief, trace: Trace, hypothesis: Hypothesis) -> Files:
            await asyncio.sleep(0.2 if trace.loop == 0 else 0)
            return await super().code(brief, trace, hypothesis)

    # The sixth step is the run of loop 1; that of loop 0 is then one too many.
    options, limits = EngineOptions(parallel=2), Limits(loop_n=2, step_n=6)
    ended = drive(tmp_path / "run", noop(tmp_path), SlowFirst(ACTS), limits=limits, options=options)
    assert ended.limit == "--step-n"
    assert [e.last_step for e in RunFolder(tmp_path / "run").state().experiments] == ["code", "run"]
    assert drive(tmp_path / "run", noop(tmp_path), ScriptedAgent(ACTS), options=options).status == "completed"


class Answers:
    """A gate that says `answers` in turn, then no, and keeps which loops it was asked about."""

    def __init__(self, *answers: bool) -> None:
        self._answers = list(answers)
        self.asked: list[int] = []

    async def go_on(self, state: State, loop: int) -> bool:
        assert state.complete(loop)
        self.asked.append(loop)
        await asyncio.sleep(0.01)
        return self._answers.pop(0) if self._answers else False


def test_a_no_ends_the_loops_and_the_best_so_far_is_tested(tmp_path: Path) -> None:
    gate = Answers(True)
    options, limits = EngineOptions(gate=gate), Limits(loop_n=5)
    ended = drive(tmp_path / "run", noop(tmp_path), SearchAgent(), limits=limits, options=options)
    assert (ended.status, ended.limit, gate.asked) == ("stopped", "", [0, 1])
    state = RunFolder(tmp_path / "run").state()
    assert (state.status, len(state.experiments), state.test_openings) == ("stopped", 2, 1)
    gate = Answers(True, True)
    ended = drive(tmp_path / "run", noop(tmp_path), SearchAgent(), limits=limits, options=EngineOptions(gate=gate))
    assert ended.status == "completed"
    assert gate.asked == [2, 3]  # what was done before the session, and the last loop, need no answer
    drive(tmp_path / "whole", noop(tmp_path), SearchAgent(), limits=limits)
    params = [
        [e.hypothesis.params for e in RunFolder(tmp_path / name).state().experiments] for name in ("run", "whole")
    ]
    assert params[0] == params[1]


@pytest.mark.parametrize("parallel", [2, 3])
def test_a_no_lets_what_was_submitted_come_to_its_end(tmp_path: Path, parallel: int) -> None:
    gate = Answers(True)
    options = EngineOptions(parallel=parallel, gate=gate)
    ended = drive(tmp_path / "run", noop(tmp_path), SearchAgent(), limits=Limits(loop_n=9), options=options)
    assert ended.status == "stopped"
    assert gate.asked == [0, 1]
    state = RunFolder(tmp_path / "run").state()
    assert len(state.experiments) == parallel + 1
    assert all(state.complete(loop) for loop in range(parallel + 1))


def test_a_control_measures_nothing_again_and_keeps_nothing(tmp_path: Path) -> None:
    drive(tmp_path / "run", noop(tmp_path), SearchAgent(), limits=Limits(4), options=EngineOptions(control=True))
    state = RunFolder(tmp_path / "run").state()
    assert state.status == "completed"
    assert state.test_openings == 0
    assert {split for item in state.experiments for split in item.scores} == {"validation"}
    assert not (tmp_path / "run/best").exists()


def is_default(predictions: Path) -> bool:
    """Whether what is scored is the baseline, which has no parameters."""
    return not (predictions.is_file() or (predictions / "params.json").is_file())


class Trainings(NoopScenario):
    """Tells one number a training. The first is luck on whatever it is measured with; `repeats` are trained again."""

    gains = (0.9, 1.0, 1.15)
    repeats = 3

    async def score(self, predictions: Path, split: Split) -> Score:
        trained = not is_default(predictions)
        again = {f"seed{n}/run0": n + trained * self.gains[n - 1] for n in range(1, self.repeats + 1)}
        runs = {"seed0/run0": 3.0 * trained} | again
        if split == "confirm" and not again:
            raise ScoreUnavailable("nothing is trained again")
        return trained_score(
            "gain", {"validation": {"seed0/run0": runs["seed0/run0"]}, "confirm": again}.get(split, runs)
        )


def test_a_training_that_chose_a_candidate_does_not_prove_it(tmp_path: Path) -> None:
    drive(tmp_path / "run", Trainings(noop(tmp_path).options, noop(tmp_path).context), limits=Limits(loop_n=1))
    selected = RunFolder(tmp_path / "run").state().selected
    assert selected is not None
    assert selected.verdict == "improved"
    assert selected.reason.startswith("paired t on 3 trainings, test: difference +1.0167")


def test_trainings_that_all_chose_the_candidate_prove_nothing(tmp_path: Path) -> None:
    scenario = Trainings(noop(tmp_path).options, noop(tmp_path).context)
    scenario.repeats = 0
    drive(tmp_path / "run", scenario, limits=Limits(loop_n=1))
    selected = RunFolder(tmp_path / "run").state().selected
    assert selected is not None
    assert (selected.loop, selected.verdict, selected.p_value) == (0, "tie", None)
    assert "no training was tested but those that the candidate was chosen by" in selected.reason


def test_a_baseline_without_the_repeated_trainings_lets_nothing_be_claimed(tmp_path: Path) -> None:
    class OneDefault(Trainings):
        async def score(self, predictions: Path, split: Split) -> Score:
            score = await super().score(predictions, split)
            default = is_default(predictions)
            if default and split == "confirm":
                raise ScoreUnavailable("the default crashed with another seed")
            return trained_score("gain", {"seed0/run0": 0.0}) if default else score

    drive(tmp_path / "run", OneDefault(noop(tmp_path).options, noop(tmp_path).context), limits=Limits(loop_n=1))
    state = RunFolder(tmp_path / "run").state()
    assert state.status == "completed"
    assert state.selected is not None
    assert (state.selected.loop, state.selected.verdict) == (0, "tie")


def test_a_default_that_exceeds_a_constraint_gives_way_to_what_keeps_it(tmp_path: Path) -> None:
    class Slow(Trainings):
        async def score(self, predictions: Path, split: Split) -> Score:
            score = await super().score(predictions, split)
            default = is_default(predictions)
            ahead = {run: value + 9 * default for run, value in score.outcomes.items()}
            return trained_score("gain", ahead, details={"latency": 9.0 if default else 1.0})

    options = EngineOptions(policy=PolicyOptions(constraints=(Constraint("latency", 2.0),)))
    scenario = Slow(noop(tmp_path).options, noop(tmp_path).context)
    drive(tmp_path / "run", scenario, limits=Limits(loop_n=1), options=options)
    state = RunFolder(tmp_path / "run").state()
    assert state.experiments[0].feedback is not None
    assert state.experiments[0].feedback.decision == "accept"
    assert state.selected is not None
    assert state.selected.loop == 0
