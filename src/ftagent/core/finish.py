"""The end of a run: separate the best from its challengers, open the sealed test once, decide what is claimed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace

from ftagent.core import events, policy
from ftagent.core.executor import Executor
from ftagent.core.options import EngineOptions
from ftagent.core.outputs import point, replace_folder
from ftagent.core.protocols import Scenario
from ftagent.core.session import Session
from ftagent.core.statistics import compare, pooled, trained_score
from ftagent.core.types import Brief, Candidate, Score, Split, Status
from ftagent.core.workspace import Workspace


class Finish:
    """Resumable like the loop: what is journaled is not done again."""

    def __init__(
        self, session: Session, scenario: Scenario, executor: Executor, options: EngineOptions, brief: Brief
    ) -> None:
        self._session = session
        self._scenario = scenario
        self._executor = executor
        self._options = options
        self._brief = brief

    async def run(self, status: Status) -> None:
        """Select, test, claim, keep. Nothing to do when the run is finished already."""
        if self._session.state.status is not None:
            return
        self._session.observer.step(None, None, "finish")
        if self._session.state.selected is None:
            best = await self._select()
            if not self._options.control:
                await self._open_test(best)
            self._session.record(self._claim(best))
        selected = self._session.state.selected
        if not self._options.control:
            self._keep_best(selected.loop if selected else None)
        if self._options.keep == "none":
            for experiment in self._session.state.experiments:
                self._executor.drop_weights(experiment.loop)
        self._session.record(events.Finished(status))

    async def _select(self) -> int | None:
        """The loop to recommend. Candidates within noise of each other are measured again on fresh items.

        The best of several noisy scores is too good on average; items that did not choose it take that away.
        """
        state, options = self._session.state, self._options
        baseline = state.baseline_scores.get("validation")
        if not options.control and (gone := self._executor.leader_gone()):
            raise gone
        here = [
            e for e in state.experiments if e.validation and (options.control or self._executor.has_weights(e.loop))
        ]
        near = policy.challengers(here, baseline, self._brief.direction, options.policy)
        rival = self._rival(near, baseline)
        if not options.control and len(near) + (rival is not None) > 1:
            for loop in near:
                if "confirm" not in state.experiments[loop].scores:
                    await self._executor.score(self._candidate(loop), "confirm")
            if rival is not None and "confirm" not in state.baseline_scores:
                await self._executor.score(self._scenario.baseline(), "confirm")
        return self._best(near, rival is not None)

    def _rival(self, near: list[int], baseline: Score | None) -> Score | None:
        """The baseline, unless it is clearly behind: then it need not be measured again.

        Where trainings are the items, only trainings that chose nothing can prove a lead: those of `confirm`.
        """
        best = self._session.state.experiments[near[0]].validation if near else None
        if policy.excess(
            self._options.policy.constraints, policy.measured(baseline, self._session.state.baseline_stages)
        ):
            return None  # it may not be recommended
        if baseline is None or best is None or best.statistic == "runs" or policy.within_noise(baseline, best):
            return baseline
        ahead = best.value > baseline.value if best.direction == "maximize" else best.value < baseline.value
        return None if ahead else baseline

    def _best(self, near: list[int], with_baseline: bool) -> int | None:
        state = self._session.state
        confirmed = [
            replace(e, scores={"validation": _pooled(dict(e.scores))}) for e in state.experiments if e.loop in near
        ]
        baseline = _pooled(state.baseline_scores) if with_baseline else None
        order = policy.ranking(confirmed, baseline, self._brief.direction)
        return order[0] if order else None

    async def _open_test(self, best: int | None) -> None:
        """Score the baseline and the selected candidate on the sealed split; journaled before it is read."""
        state = self._session.state
        wanted: list[Candidate] = []
        if "test" not in state.baseline_scores:
            wanted.append(self._scenario.baseline())
        if best is not None and "test" not in state.experiments[best].scores:
            wanted.append(self._candidate(best))
        if not wanted:
            return
        if not state.test_is_open:
            self._session.record(events.TestOpened("finish", () if best is None else (best,)))
        for candidate in wanted:
            _, failure = await self._executor.score(candidate, "test")
            if failure:
                self._session.observer.note(f"the sealed test has no score: {failure.removeprefix('no score: ')}")

    def _claim(self, best: int | None) -> events.Selected:
        """The statistical decision: a paired test against the baseline, corrected for every look."""
        state = self._session.state
        if best is None:
            what = "nothing that keeps the constraints" if self._options.policy.constraints else "nothing"
            return events.Selected(None, "tie", "validation", None, 0, f"{what} scored better than the baseline")
        experiment = state.experiments[best]
        for split in _by_trust(state.baseline_scores, experiment.scores):
            # On the test only those that were tested could be claimed; on validation each scored one could.
            tried = sum(split in e.scores for e in state.experiments)
            baseline, score = state.baseline_scores[split], experiment.scores[split]
            if score.statistic == "runs" and split == "test":
                tried = sum(not e.scores.keys().isdisjoint(("confirm", "test")) for e in state.experiments)
                fresh = _fresh(score, baseline, experiment.validation)
                if fresh is None:
                    told = "no training was tested but those that the candidate was chosen by"
                    return events.Selected(best, "tie", split, None, tried, told)
                score = fresh
            test = compare(baseline, score, comparisons=tried, seed=state.created.seed if state.created else 0)
            unit = f"trainings, {split}" if score.statistic == "runs" else f"{split} items"
            reason = (
                f"{test.name} on {test.n} {unit}: difference {test.difference:+.4f}, "
                f"p = {test.p_value:.3g}, corrected for {tried} comparison{'s' if tried != 1 else ''}"
            )
            return events.Selected(best, test.verdict, split, test.p_value, tried, reason)
        return events.Selected(best, "tie", "validation", None, 0, "no split has both scores")

    def _keep_best(self, best: int | None) -> None:
        """Lay the weights and files of the best under best/, whole or not at all.

        Where the baseline is a configuration that was trained, it is kept like any other.
        """
        folder, plan = self._session.folder, self._brief.plan
        if best is None and not (plan and self._executor.has_model(None)):
            return
        if best is not None and not self._executor.has_weights(best):
            raise self._executor.gone(best, self._executor.model(best))
        staging = folder.path / ".best.new"
        shutil.rmtree(staging, ignore_errors=True)
        if self._executor.model(best).is_dir():
            Workspace(folder.workspace(best)).collect(self._brief.model_folder, staging)
        files = self._scenario.baseline().files if best is None else self._session.state.experiments[best].files
        Workspace(staging / "files").write(files)
        if plan is None:
            replace_folder(staging, folder.best)
        else:
            replace_folder(staging, folder.best_overall_model)
            point(folder.best, folder.best_overall_model.name)

    def _candidate(self, loop: int) -> Candidate:
        experiment = self._session.state.experiments[loop]
        return Candidate(loop, experiment.files, experiment.hypothesis.params)


def _pooled(scores: dict[Split, Score]) -> Score:
    score = scores["validation"]
    return pooled(score, scores["confirm"]) if "confirm" in scores else score


def _fresh(test: Score, baseline: Score, validation: Score | None) -> Score | None:
    """`test` without the trainings whose validation chose the candidate among all; None where the baseline has none of
    the others.

    A training's luck shows in its test value too: the luckiest of many trainings is lucky there as well.
    """
    chosen_by = validation.outcomes if validation is not None else {}
    left = {run: value for run, value in test.outcomes.items() if run in baseline.outcomes and run not in chosen_by}
    return trained_score(test.metric, left, direction=test.direction) if left else None


def _by_trust(baseline: Mapping[Split, Score], candidate: Mapping[Split, Score]) -> list[Split]:
    splits: tuple[Split, ...] = ("test", "validation")
    return [split for split in splits if split in baseline and split in candidate]
