"""The model card of what a run selected, and the script that trains it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftagent.core.files import atomic_write
from ftagent.core.run_folder import RunFolder
from ftagent.core.state import State
from ftagent.core.types import Experiment, Hypothesis, Stage
from ftagent.report import sections
from ftagent.report.markup import code, plain, table
from ftagent.report.reproduce import reproduce_script
from ftagent.report.text import SPLITS, clock, plural, score_text
from ftagent.report.usage import how_to_use
from ftagent.report.writing import record_of

DEFAULT = -1
"""Loop number of the default configuration in a card."""


def write_card(folder: RunFolder, state: State, stages: Sequence[Stage]) -> list[Path]:
    """README.md and reproduce.sh in best/; nothing where nothing is kept there. Raises StorageFull."""
    chosen = state.selected
    if chosen is None or not folder.best.is_dir():
        return []
    item = default_of(folder, state) if chosen.loop is None else state.experiments[chosen.loop]
    record = record_of(folder)
    script, card = folder.best / "reproduce.sh", folder.best / "README.md"
    atomic_write(script, reproduce_script(folder, item, stages, record))
    script.chmod(0o755)
    atomic_write(card, card_markdown(folder, state, item, record))
    return [card, script]


def default_of(folder: RunFolder, state: State) -> Experiment:
    """A baseline that was trained, as if it were an experiment. Its files are those in best/."""
    root = folder.best / "files"
    files = {path.relative_to(root).as_posix(): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}
    full = [record for record in state.baseline_stages if record.purpose == "full"]
    idea = Hypothesis("the default configuration", "No configuration that was tried scored better.")
    seconds = sum(record.execution.seconds for record in full)
    return Experiment(DEFAULT, idea, files, stages=tuple(full), scores=state.baseline_scores, seconds=seconds)


def card_markdown(folder: RunFolder, state: State, item: Experiment, record: dict[str, Any]) -> str:
    """The card: what it is, its numbers with intervals, how to load it, how it was made."""
    request = record.get("request", {})
    subject = "default configuration" if item.loop == DEFAULT else f"loop {item.loop}"
    lines = [*_front_matter(folder, request), f"# {plain(sections.title(state, record))}, {subject}", ""]
    lines += [f"**{plain(sections.claim(state))}**", ""]
    lines += ["## Scores", "", *_scores(state, item)]
    lines += ["## How to load it", "", *how_to_use(folder, state)]
    made = [f"Hypothesis: {plain(item.hypothesis.title)}.", "", plain(item.hypothesis.reason), ""]
    lines += ["## How it was made", "", *made]
    seed = state.created.seed if state.created else "missing"
    rows = [["run", code(folder.name)], ["what", subject], ["seed", str(seed)], ["time", clock(item.seconds)]]
    for key in ("base_model", "benchmark", "datasets"):
        if request.get(key):
            value = request[key]
            rows.append([key.replace("_", " "), plain(", ".join(value) if isinstance(value, list) else str(value))])
    rows += [[plain(name), code(str(value))] for name, value in item.hypothesis.params.items()]
    lines += table(["", ""], rows)
    lines += ["## Limits", "", *_limits(state)]
    return "\n".join(lines).rstrip() + "\n"


def _front_matter(folder: RunFolder, request: dict[str, Any]) -> list[str]:
    import json

    adapter = (folder.best / "adapter_config.json").is_file()
    library = "peft" if adapter else "transformers"
    if (folder.best / "modules.json").is_file():
        library = "sentence-transformers"
    entries: dict[str, Any] = {"library_name": library, "tags": ["ftagent"]}
    if request.get("base_model"):
        entries["base_model"] = str(request["base_model"])
    # JSON is YAML, and quotes what a name could smuggle in.
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in entries.items()), "---", ""]


def _scores(state: State, item: Experiment) -> list[str]:
    metric = plain(state.created.metric) if state.created else "score"
    rows = [
        [split, score_text(item.scores[split], True), score_text(state.baseline_scores.get(split), True)]
        for split in SPLITS
        if split in item.scores
    ]
    if not rows:
        return ["No score was measured.", ""]
    return [f"{metric}, with 95 % intervals.", "", *table(["split", "this model", "baseline"], rows)]


def _limits(state: State) -> list[str]:
    lines = [f"- The sealed test was opened {plural(state.test_openings, 'time')}."]
    if state.created is None or not state.created.sealed:
        lines.append("- Not sealed: training commands could have read answers or the network.")
    lines.append("- Measured on this benchmark alone; nothing is known of other tasks, languages or safety.")
    return [*lines, ""]
