"""`python -m ftagent.toolkit.train config.yaml [-o key=value]...`: fine-tuning, resumable.

The loop is our own because it is several times faster than TRL's on a CPU (tests/bench/bench_train.py measures it):
rows are packed without padding, their common beginning is computed once, logits exist only where there is a label, and
`kernels` computes the rest faster. That changes the loss by float rounding alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftagent.toolkit.checkpoint import Write, forget_others, load_checkpoint, load_weights, prune_checkpoints
from ftagent.toolkit.command import Emit, run_command
from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.errors import ToolkitError, full_storage_is_told
from ftagent.toolkit.files import MARKER, content_of, fingerprint, is_complete
from ftagent.toolkit.interrupts import stop_after_step
from ftagent.toolkit.logs import log, log_file
from ftagent.toolkit.loop import CHECKPOINTS, METRICS, Training, optimise, seed_step
from ftagent.toolkit.objectives.build import prepare_objective, read_rows
from ftagent.toolkit.objectives.prepared import Prepared, Rows
from ftagent.toolkit.processes import join_processes, leave_processes, wait_for_all
from ftagent.toolkit.reports import Report, check_report, open_report
from ftagent.toolkit.result import Summary, save_result, write_config
from ftagent.toolkit.share import Share

if TYPE_CHECKING:
    from ftagent.toolkit.learner import Learner

FREE = ("model_name", "dataset_path", "split", "save_model_path", "validation_path", "validation_split", "then",
        "checkpoint_steps", "keep_checkpoints", "log_steps", "report_to", "gradient_checkpointing",
        "strategy", "deepspeed_config")  # fmt: skip
"""Keys that do not change the result: where it is written and how often it reports. Rows count by their content."""


def train(config: TrainConfig, emit: Emit, fresh: bool = False) -> Summary | None:
    """Fine-tune as `config` says. Its save_model_path gets adapter or weights, tokenizer, metrics.jsonl, summary.json.

    Goes on from the last complete checkpoint of the same config and data unless `fresh`; None when the result is there.
    Raises ToolkitError for a request that cannot be done, StorageFull, and Interrupted after Ctrl-C.
    """
    check_report(config)
    rows = read_rows(config)
    identity = _identity(config, rows)
    if not fresh and is_complete(config.save_model_path, identity):
        emit({"event": "already_complete", "output": str(config.save_model_path)})
        return None
    share = join_processes(config)
    try:
        # Whatever can be refused is refused before the folder is touched: an older result may be in it.
        work = _prepare(config, rows, share)
        if share.rank == 0:
            _make_folder(config.save_model_path, identity, fresh)
        wait_for_all(share)
        with stop_after_step() as stopping, nullcontext() if share.rank else log_file(config.save_model_path):
            return _run(config, identity, work, _Teller(emit, config), stopping)
    finally:
        if share.processes > 1:
            leave_processes()


@dataclass(frozen=True)
class _Work:
    learner: Learner
    prepared: Prepared
    share: Share
    summary: Summary
    """As if every step were taken."""


def _prepare(config: TrainConfig, rows: Rows, share: Share) -> _Work:
    """Model, objective and batches. Raises ToolkitError for whatever this model, data or machine cannot do."""
    from ftagent.toolkit.learner import load_learner

    learner = load_learner(config, share)
    share = replace(share, scaler=learner.precision.scaler)
    prepared = prepare_objective(learner.model, learner.tokenizer, config, rows, share)
    seed_step(config.seed, 0, 0)
    learner.prepare(config)
    if share.sharded:
        learner.shard(config)
    steps, tokens = len(prepared.batches), sum(map(prepared.objective.tokens, prepared.batches))
    return _Work(learner, prepared, share, Summary(steps, tokens, prepared.numbers, steps))


def _run(config: TrainConfig, identity: str, work: _Work, tell: _Teller, stopping: Callable[[], bool]) -> Summary:
    from ftagent.toolkit.kernels.select import speed_up

    learner, prepared, share = work.learner, work.prepared, work.share
    optimizer = learner.optimizer(config, share)
    if not share.sharded:
        speed_up(learner.inner)
    checkpoints = config.save_model_path / CHECKPOINTS
    progress = load_checkpoint(checkpoints, identity, learner.inner, optimizer)
    if share.scaler is not None and progress.scale is not None:
        share.scaler.load_state_dict({**share.scaler.state_dict(), "scale": progress.scale})
    learner.inner.train()
    with tell.reporting(progress.step + 1, share):
        tell({"event": "data", **{key: value for key, value in work.summary.document().items() if key != "seconds"}})
        if progress.step:
            tell({"event": "resumed", "step": progress.step})
        training = Training(
            learner.passes, optimizer, prepared.objective, prepared.batches, config, identity, tell,
            prepared.held_out, _checkpoint_writer(learner, config), share, stopping, learner.precision.autocast,
        )  # fmt: skip
        optimise(training, progress)
        summary = replace(
            work.summary, steps=progress.step, tokens=progress.tokens, seconds=round(progress.seconds, 3),
            best_step=progress.best_step, validation_loss=progress.best_value,
        )  # fmt: skip
        if progress.best_step not in (None, progress.step):
            load_weights(checkpoints, progress.best_step, learner.inner)
        write = learner.writer(share.rank == 0, result=True)
        if share.rank == 0:
            _save(write, config, identity, summary)
            kept = config.keep_checkpoints
            prune_checkpoints(checkpoints, kept, progress.best_step if kept else None)
        tell({"event": "saved", "output": str(config.save_model_path), **summary.document()})
    return summary


def _checkpoint_writer(learner: Learner, config: TrainConfig) -> Callable[[bool], Write]:
    """As `learner.writer`, with the config: a checkpoint by itself tells how it wants to be asked."""

    def writer(wanted: bool) -> Write:
        write = learner.writer(wanted)

        def write_both(folder: Path) -> None:
            write(folder)
            write_config(folder, config)

        return write_both

    return writer


class _Teller:
    """Passes each record on to the caller, to the log and to the report that the config asks for."""

    def __init__(self, emit: Emit, config: TrainConfig) -> None:
        self._emit = emit
        self._config = config
        self._report: Report | None = None
        self._silent = False

    def __call__(self, record: dict[str, Any]) -> None:
        if self._silent:
            return
        log(record)
        self._emit(record)
        if self._report is not None and "step" in record and "event" not in record:
            values = {name: value for name, value in record.items() if isinstance(value, float)}
            self._report.line(record["step"], {**values, "tokens": record["tokens"]})

    @contextmanager
    def reporting(self, first_step: int, share: Share) -> Iterator[None]:
        """Keep the report open meanwhile. Processes but the first say nothing."""
        self._silent = share.rank > 0
        self._report = None if self._silent else open_report(self._config, first_step)
        try:
            yield
        finally:
            if self._report is not None:
                self._report.close()


def _identity(config: TrainConfig, rows: Rows) -> str:
    """Same identity, same result: the config, the rows, and the model that its path leads to now."""
    values = config.model_dump(mode="json", exclude=set(FREE))
    return fingerprint({"config": values, "data": rows.fingerprint(), "model": content_of(Path(config.model_path))})


def _make_folder(folder: Path, identity: str, fresh: bool) -> None:
    """Make save_model_path ready: no mark of an older result, no checkpoint of another training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).unlink(missing_ok=True)
    except OSError as error:
        raise ToolkitError(f"save_model_path {str(folder)!r}: cannot be written: {error.strerror}") from error
    forget_others(folder / CHECKPOINTS, "" if fresh else identity)


def _save(write: Write, config: TrainConfig, identity: str, summary: Summary) -> None:
    folder = config.save_model_path
    with full_storage_is_told(str(folder), lambda: "free some space, and the same command goes on"):
        write(folder)
    save_result(folder, identity, summary, config, {METRICS})


if __name__ == "__main__":
    sys.exit(run_command("train", sys.argv[1:], TrainConfig, train))
