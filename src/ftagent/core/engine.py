"""The loop: propose, code, run, feedback, until a limit; then finish.

Every step asks the journal first whether it was done before, so a resumed run takes the same path as an
uninterrupted one and repeats nothing. With `parallel` loops in flight, loop i proposes after the feedback of loop
i - parallel and sees exactly the loops up to there, and feedback is given in order of submission: what is
proposed does not depend on which loop happens to end first.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from ftagent.core import events, policy
from ftagent.core.errors import FtagentError, NoUsableReply, first_of
from ftagent.core.executor import Executor, describe
from ftagent.core.finish import Finish
from ftagent.core.keeping import Keeper
from ftagent.core.options import EngineOptions
from ftagent.core.protocols import Agent, Environment, Scenario
from ftagent.core.session import LimitReached, Session
from ftagent.core.types import Candidate, Execution, Experiment, Files, Status, StepName, Trace
from ftagent.core.workspace import UnsafePath, Workspace

__all__ = ["Ended", "Engine", "EngineOptions"]


@dataclass(frozen=True)
class Ended:
    """How a session ended; `limit` is the option that did it."""

    status: Status
    limit: str = ""


class Engine:
    """Drives one session of one run. `stop` ends it from a signal handler."""

    def __init__(
        self, session: Session, scenario: Scenario, agent: Agent, environment: Environment, options: EngineOptions
    ) -> None:
        self._session = session
        self._scenario = scenario
        self._agent = agent
        self._options = options
        self._brief = scenario.brief()
        self._executor = Executor(session, scenario, environment, self._brief.model_folder)
        self._moved = asyncio.Event()
        self._limit = ""
        self._stopped = False  # by the user: what was submitted is brought to its end
        self._keeper = Keeper(session, self._executor, options, self._brief)
        self._known = sum(session.state.complete(e.loop) for e in session.state.experiments)
        self._slots = {step: asyncio.Semaphore(n) for step, n in options.step_limits.items()}

    async def run(self) -> Ended:
        """Baseline, loops, finish. Raises FtagentError for what is ours; all that ended well is journaled."""
        if not self._options.control and (why := self._executor.leader_gone()):
            self._session.observer.note(f"{why} unless a better one is found")
        self._keeper.tidy()
        try:
            async with asyncio.timeout(self._session.seconds_left()):
                await self._measure_baseline()
                await self._loops()
        except LimitReached as reached:
            self._limit = reached.limit
        except TimeoutError:
            self._limit = "--timeout"
        except ExceptionGroup as group:
            raise first_of(group) from group
        status: Status = "budget" if self._limit else "stopped" if self._stopped else "completed"
        # `--step-n` is for stepping through a run: it must leave the sealed test alone.
        if self._limit != "--step-n" and "validation" in self._session.state.baseline_scores:
            finish = Finish(self._session, self._scenario, self._executor, self._options, self._brief)
            await finish.run(status)
            self._keeper.tidy()
        return Ended(status, self._limit)

    async def _measure_baseline(self) -> None:
        baseline = self._scenario.baseline()
        if "validation" in self._session.state.baseline_scores:
            return
        self._session.begin_step()
        self._executor.open_workspace(baseline)
        # Where the baseline is a configuration, it is trained like any other.
        failed = await self._executor.stages(baseline, "full")
        score, failure = (None, describe(failed)) if failed else await self._executor.score(baseline, "validation")
        if score is None:
            raise FtagentError(f"the baseline could not be measured: {failure}")

    async def _loops(self) -> None:
        async with asyncio.TaskGroup() as group:
            for loop in itertools.count():
                await self._wait(self._may_propose, loop)
                if self._limit or loop == self._session.state.limits.loop_n or not await self._go_on(loop):
                    break
                try:
                    await self._propose(loop)
                except LimitReached as reached:
                    self._wake(reached.limit)
                    break
                group.create_task(self._complete(loop))

    async def _go_on(self, loop: int) -> bool:
        """Whether `loop` may be submitted; asked about each loop that this session brought to its end."""
        before, gate = loop - self._options.parallel, self._options.gate
        if gate is not None and before >= self._known and not await gate.go_on(self._session.state, before):
            self._stopped = True
            self._wake()
        return not self._stopped

    async def _complete(self, loop: int) -> None:
        """The rest of a proposed loop."""
        try:
            await self._code(loop)
            await self._run(loop)
            await self._wait(self._may_reflect, loop)
            await self._feedback(loop)
        except LimitReached as reached:
            self._wake(reached.limit)

    async def _propose(self, loop: int) -> None:
        if self._session.state.reached(loop, "propose"):
            return
        async with self._step(loop, "propose"):
            self._session.begin_loop(loop)
            hypothesis = await self._agent.propose(self._brief, self._trace(loop))
            path = self._session.folder.step(loop, "propose", "hypothesis.json")
            self._session.folder.write_json(path, hypothesis)
            self._session.record(events.Proposed(loop, hypothesis))

    async def _code(self, loop: int) -> None:
        if self._session.state.reached(loop, "code"):
            return
        async with self._step(loop, "code"):
            failure = self._experiment(loop).hypothesis.abandoned
            if not failure:
                try:
                    failure = await self._build(loop)
                except NoUsableReply as error:
                    failure = str(error)
            self._session.record(events.Built(loop, failure))

    async def _build(self, loop: int) -> str:
        """Write, check and rehearse until it works. Returns why it still fails; empty when it works."""
        failed: Execution | None = None
        made = self._experiment(loop).attempts  # all but the last of them failed, or there would be no later one
        for attempt in range(min(max(0, made - 1), self._options.repairs), self._options.repairs + 1):
            if attempt == self._experiment(loop).attempts:
                files = await self._write_code(loop, failed)
                if failed and files == self._experiment(loop).files:
                    break  # the agent has no repair: the same files would fail in the same way
                self._store(loop, attempt, files)
            failed = await self._executor.check(self._candidate(loop), attempt, self._brief)
            failed = failed or await self._executor.stages(self._candidate(loop), "debug", attempt=attempt)
            if failed is None:
                break
        return describe(failed) if failed else ""

    async def _write_code(self, loop: int, failed: Execution | None) -> Files:
        experiment = self._experiment(loop)
        if failed is None:
            return await self._agent.code(self._brief, self._trace(loop), experiment.hypothesis)
        return await self._agent.repair(self._brief, experiment, failed)

    def _store(self, loop: int, attempt: int, files: Files) -> None:
        """Record an attempt's files; none of them when one has a name that leads out of the workspace."""
        try:
            Workspace(self._session.folder.attempt(loop, attempt)).write(files)
        except UnsafePath as error:
            self._session.observer.note(f"loop {loop}: the agent's files are refused: {error}")
            files = {}
        digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
        self._session.record(events.Coded(loop, attempt, digests))

    async def _run(self, loop: int) -> None:
        if self._session.state.reached(loop, "run"):
            return
        async with self._step(loop, "run"):
            failure, started = self._experiment(loop).failure, self._session.journal.elapsed
            if not failure:
                self._executor.open_workspace(self._candidate(loop))
                failed = await self._executor.stages(self._candidate(loop), "full")
                failure = describe(failed) if failed else ""
            if not failure and "validation" not in self._experiment(loop).scores:
                _, failure = await self._executor.score(self._candidate(loop), "validation")
            seconds = round(self._session.journal.elapsed - started, 3)
            losses, curve = self._executor.losses(loop), self._executor.curve(loop, self._brief.plan)
            self._session.record(events.Ran(loop, failure, seconds, losses, curve))

    async def _feedback(self, loop: int) -> None:
        if self._session.state.reached(loop, "feedback"):
            return
        async with self._step(loop, "feedback"):
            experiment, trace = self._experiment(loop), self._session.state.trace(loop, loop)
            outcome = policy.judge(experiment, self._session.state.leader, trace, self._options.policy)
            said = await self._agent.reflect(self._brief, trace, experiment, outcome)
            feedback = replace(said, decision=outcome.decision)
            path = self._session.folder.step(loop, "feedback", "feedback.json")
            self._session.folder.write_json(path, feedback)
            self._session.record(events.Reflected(loop, feedback))
            self._keeper.after(loop)

    def _experiment(self, loop: int) -> Experiment:
        return self._session.state.experiments[loop]

    def _candidate(self, loop: int) -> Candidate:
        experiment = self._experiment(loop)
        return Candidate(loop, experiment.files, experiment.hypothesis.params)

    def _trace(self, loop: int) -> Trace:
        return self._session.state.trace(loop, max(0, loop - self._options.parallel + 1))

    def _may_propose(self, loop: int) -> bool:
        before = loop - self._options.parallel
        return bool(self._limit) or before < 0 or self._session.state.complete(before)

    def _may_reflect(self, loop: int) -> bool:
        state, ahead = self._session.state, loop + self._options.parallel
        if loop and not state.complete(loop - 1):
            return False
        ahead = ahead if state.limits.loop_n is None else min(ahead, state.limits.loop_n)
        return bool(self._limit) or self._stopped or len(state.experiments) >= ahead

    async def _wait(self, ready: Callable[[int], bool], loop: int) -> None:
        while not ready(loop):
            if self._limit:
                raise LimitReached(self._limit)  # the loop that is waited for may never come so far
            await self._moved.wait()

    def _wake(self, limit: str = "") -> None:
        """Let everyone who waits look again; with `limit`, to see that the run ends by it."""
        self._limit = self._limit or limit
        self._moved.set()
        self._moved = asyncio.Event()

    @contextlib.asynccontextmanager
    async def _step(self, loop: int, step: StepName) -> AsyncIterator[None]:
        """Within the limits of the run and of this step; afterwards everyone who waits looks again."""
        async with self._slots.get(step) or contextlib.nullcontext():
            self._session.begin_step()
            self._session.observer.step(loop, step, "")
            yield
        self._wake()
