"""What `ftagent evaluate` and `ftagent score` do: predict in an environment, score here; or score a file
alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftagent.core.errors import EnvironmentUnavailable, FtagentError, RequestError
from ftagent.core.protocols import Environment
from ftagent.core.types import Mount, Resources, Score, Split, Stage
from ftagent.core.workspace import Workspace
from ftagent.evaluation.benchmark import Benchmark, Item
from ftagent.evaluation.prediction import PREDICT_COMMAND, PREDICTIONS, TOOLKIT_VARIABLES, Decoding, prediction_files
from ftagent.evaluation.scoring import Graded, details_lines, score_file


@dataclass(frozen=True)
class Evaluation:
    """A model's score with how each item was graded."""

    benchmark: str
    split: Split
    score: Score
    graded: Sequence[Graded]

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "benchmark": self.benchmark,
            "split": self.split,
            "score": self.score.summary(),
            "samples": self.score.samples,
            "details": self.score.details,
            "errors": self.score.errors,
        }

    def write_details(self, path: Path) -> None:
        """JSONL, one item a line, answers included. Raises RequestError where it cannot be written."""
        try:
            path.write_text("".join(line + "\n" for line in details_lines(self.graded)), encoding="utf-8")
        except OSError as error:
            raise RequestError(f"--details {path}: cannot be written: {error.strerror}") from error


async def evaluate(
    benchmark: Benchmark,
    split: Split,
    decoding: Decoding,
    environment: Environment,
    workspace: Path,
    *,
    model: Path,
    adapter: Path | None = None,
    limit: int | None = None,
    pass_k: Sequence[int] = (),
    time_limit: float = 0.0,
    gpus: Sequence[str] = (),
    on_line: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Predict on `split` inside `environment`, in the empty folder `workspace`, and score in our process.

    Raises RequestError where there is nothing to measure, FtagentError when predicting fails,
    ScoreUnavailable, EnvironmentUnavailable.
    """
    items = _items(benchmark, split, limit)
    stage = _stage(prediction_mounts(model, adapter), benchmark, items, decoding, time_limit, tuple(gpus))
    folder = Workspace(workspace)
    folder.write(stage.files)
    await environment.prepare("predict")
    execution = await environment.execute(stage, workspace, on_line, workspace.with_suffix(".log"))
    if execution.end == "lost":
        raise EnvironmentUnavailable(f"predicting was lost: {execution.detail}")
    if not execution.ok:
        lines = [line for line in execution.tail.splitlines() if line.strip()]
        raise FtagentError(f"predicting {execution.end}: {execution.detail or (lines or ['no output'])[-1]}")
    collected = workspace.with_name(workspace.name + "-" + PREDICTIONS)
    folder.collect(PREDICTIONS, collected)
    score, graded = await asyncio.to_thread(score_file, benchmark, items, collected, tuple(pass_k))
    return Evaluation(benchmark.name, split, score, graded)


def prediction_mounts(model: Path, adapter: Path | None) -> tuple[Mount, ...]:
    """What predicting reads. Raises RequestError for a folder that holds no adapter."""
    mounts = [Mount("MODEL", str(model.absolute()))]
    if adapter is not None:
        if not (adapter / "adapter_config.json").is_file():
            raise RequestError(f"--adapter {adapter}: the folder has no adapter_config.json")
        mounts.append(Mount("ADAPTER", str(adapter.absolute())))
    return tuple(mounts)


def _stage(
    mounts: tuple[Mount, ...],
    benchmark: Benchmark,
    items: Sequence[Item],
    decoding: Decoding,
    time_limit: float,
    gpus: tuple[str, ...],
) -> Stage:
    sources = {mount.name: mount.source for mount in mounts}
    return Stage(
        "predict",
        "predict",
        PREDICT_COMMAND,
        time_limit=time_limit,
        resources=Resources(gpus=gpus),
        mounts=mounts,
        variables=TOOLKIT_VARIABLES,
        files=prediction_files(benchmark, items, decoding, sources["MODEL"], sources.get("ADAPTER")),
        outputs=(PREDICTIONS,),
    )


def score_predictions(
    benchmark: Benchmark,
    predictions: Path,
    split: Split,
    *,
    items_file: Path | None = None,
    limit: int | None = None,
    pass_k: Sequence[int] = (),
) -> Evaluation:
    """Score a file of predictions against the items of `split`, or those of `items_file`.

    Raises RequestError for items that do not read, ScoreUnavailable for predictions that do not.
    """
    known = _items(benchmark, split, limit)
    items = read_items(items_file, known) if items_file is not None else known
    score, graded = score_file(benchmark, items, predictions, tuple(pass_k))
    return Evaluation(benchmark.name, split, score, graded)


def read_items(path: Path, known: Sequence[Item]) -> tuple[Item, ...]:
    """Items from JSONL: {"id"} of `known` ones, or {"id" or none, "question", "answer"} with the
    benchmark's own further fields. An item without an id gets its position. Raises RequestError."""
    by_id = {item.id: item for item in known}
    by_question = {item.question: item for item in known}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"--items {path}: cannot be read: {error}") from error
    items: list[Item] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            items.append(_item(line, f"--items {path}:{number}", len(items), by_id, by_question))
    if len({item.id for item in items}) != len(items):
        raise RequestError(f"--items {path}: two items have the same id")
    return tuple(items)


def _item(line: str, place: str, index: int, by_id: Mapping[str, Item], by_question: Mapping[str, Item]) -> Item:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise RequestError(f"{place}: not JSON") from error
    if not isinstance(row, dict):
        raise RequestError(f"{place}: not a JSON object")
    name = str(row.get("id", index))
    if "answer" not in row:
        if name in by_id:
            return by_id[name]
        raise RequestError(f'{place}: has no "answer", and {name} is no item of this split')
    same = by_question.get(str(row.get("question")))
    if same is not None:
        return Item(name, same.question, same.answer, same.meta)
    answer = str(row["answer"]).rsplit("####", 1)[-1].strip()
    meta = row if "metadata" in row else {**row, "metadata": {}}
    return Item(name, str(row.get("question", "")), answer, meta)


def _items(benchmark: Benchmark, split: Split, limit: int | None) -> tuple[Item, ...]:
    items = benchmark.items(split, limit)
    if not items:
        raise RequestError(f"{benchmark.name}: has no split {split} at this --limit; valid: validation, test")
    return items
