"""Whether disk, time and memory are enough for one more full stage, asked before it starts.

A stage that would only be cut off is not started: the run ends as at a limit, and can be resumed.
"""

from __future__ import annotations

import statistics
from functools import cached_property

from ftagent.core.errors import StorageFull
from ftagent.core.hardware import available_memory_mb, free_disk_mb
from ftagent.core.protocols import Scenario
from ftagent.core.session import LimitReached, Session
from ftagent.core.types import Estimate, Stage


class Headroom:
    """Compares what the scenario estimates, and what past loops of the run took, with what there is."""

    def __init__(self, session: Session, scenario: Scenario) -> None:
        self._session = session
        self._scenario = scenario
        self._told = False

    def check(self, loop: int, stage: Stage) -> None:
        """Before the full `stage` of `loop` starts. Too little memory is only told, once.

        Raises:
            StorageFull: less disk is free than the scenario estimates; the text says what would help.
            LimitReached: the rest of the loop would take longer than is left of `--timeout`.
        """
        self._check_disk(loop, stage)
        self._check_time(loop, stage)
        self._tell_memory(stage)

    @cached_property
    def _estimate(self) -> Estimate:
        return self._scenario.estimate()

    def _check_disk(self, loop: int, stage: Stage) -> None:
        folder, need = self._session.folder.path, self._estimate.disk_mb
        free = free_disk_mb(folder)
        if free is not None and free < need:
            raise StorageFull(
                f"{folder}: {free:.1f} MiB free, {stage.name} of loop {loop} needs about {need:.1f} MiB; "
                "free some space, for example by `ftagent prune` of a finished run, then resume"
            )

    def _check_time(self, loop: int, stage: Stage) -> None:
        left, need = self._session.seconds_left(), self._rest_of(loop)
        if left is not None and left < need:
            self._session.observer.note(
                f"loop {loop}: {stage.name} is not started: about {need:.0f} s to go, {left:.0f} s of --timeout left"
            )
            raise LimitReached("--timeout")

    def _rest_of(self, loop: int) -> float:
        """Seconds from here to the score of `loop`: what loops of this run took, else the scenario's estimate."""
        experiments = self._session.state.experiments
        measured = [past.seconds for past in experiments if past.seconds and not past.failure]
        whole = statistics.median(measured) if measured else self._estimate.seconds_per_loop
        done = [record.execution.seconds for record in experiments[loop].stages if record.purpose == "full"]
        return max(0.0, whole - sum(done))

    def _tell_memory(self, stage: Stage) -> None:
        available, need = available_memory_mb(), self._estimate.memory_mb
        # What runs on a GPU has its memory there.
        if available and available < need and not stage.resources.gpus and not self._told:
            self._told = True
            self._session.observer.note(
                f"{stage.name} needs about {need:.0f} MiB of memory and {available} MiB are free: it may be slow or "
                "run out; end other programs, or take a smaller model or batch"
            )
