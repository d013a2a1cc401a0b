"""What an agent that writes files needs to know: the rows, how answers are read, the keys of a training, its limits."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ftagent.core.context import Timeouts
from ftagent.core.untrusted import untrusted
from ftagent.evaluation.benchmark import Benchmark, TrainingRow, messages_of
from ftagent.evaluation.prediction import Decoding
from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.presets import default_values
from ftagent_llm.options import LlmOptions

SAMPLES = 3
LONGEST_SAMPLE = 900
"""Characters of one sample row; a longer row is not shown."""
IMPORTABLE = "the standard library, torch, transformers, peft, safetensors, jinja2, yaml, ftagent.toolkit"


def describe_details(
    benchmark: Benchmark,
    rows: Mapping[str, Sequence[TrainingRow]],
    decoding: Decoding,
    options: LlmOptions,
    timeouts: Timeouts,
    fixed: Collection[str],
    models: str = "",
) -> str:
    """For prompts. `rows` by dataset; of the benchmark only its rules are told, never an item. `fixed`: keys of
    train.yaml that the scenario sets. `models`: how a data script asks language models, if it may.

    What a small context can do without comes last.
    """
    parts = [
        "## Training rows\n" + "\n".join(_dataset(benchmark, name, some) for name, some in rows.items()),
        "## How answers are asked for, read and scored\n" + _scoring(benchmark, decoding),
        "## Limits of an experiment\n" + _limits(options, timeouts),
        "## Keys of train.yaml\n" + _keys(fixed),
        *(["## Language models\n" + models.strip()] if models else []),
        "## Sample rows\n" + "\n".join(_samples(benchmark, name, some) for name, some in rows.items()),
    ]
    return "\n\n".join(parts)


def _dataset(benchmark: Benchmark, name: str, rows: Sequence[TrainingRow]) -> str:
    lengths = [
        f"{what} {_spread([len(text) for text in texts])}"
        for what, texts in (
            ("prompt", [_prompt(benchmark, row) for row in rows]),
            ("answer", [row.answer for row in rows]),
            ("solution", [row.solution for row in rows if row.solution]),
        )
        if texts
    ]
    solved = sum(bool(row.solution) for row in rows)
    solutions = f"{solved} with a worked solution" if solved else "solution is empty in all of them"
    return (
        f"{name}: {len(rows)} rows {{id, prompt, answer, solution}}, {solutions}. "
        f"Characters (least, median, 9 of 10, most): {'; '.join(lengths)}."
    )


def _spread(lengths: list[int]) -> str:
    ordered = sorted(lengths)
    ninth = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    return f"{ordered[0]}, {statistics.median(ordered):.0f}, {ninth}, {ordered[-1]}"


def _scoring(benchmark: Benchmark, decoding: Decoding) -> str:
    said = f", followed by the line {benchmark.instruction!r}" if benchmark.instruction else ""
    sampled = (
        "greedy" if decoding.temperature == 0 else f"temperature {decoding.temperature:g}, top_p {decoding.top_p:g}"
    )
    samples = f", {decoding.samples} samples per item" if decoding.samples > 1 else ""
    return (
        f"An item is one user turn, the question{said}; `prompt` of a row has the same form. No system message.\n"
        f"Decoding, for the baseline and all experiments alike: {sampled}, at most {decoding.max_new_tokens} new "
        f"tokens{samples}. What is not answered by then is wrong.\n{benchmark.grading}"
    )


def _limits(options: LlmOptions, timeouts: Timeouts) -> str:
    memory = f"{options.memory_mb} MiB" if options.memory_mb else "what the machine has"
    times = ", ".join(
        f"{name} {seconds:.0f} s" if seconds else f"{name} unlimited"
        for name, seconds in (("prepare_data", timeouts.data_processing), ("train", timeouts.full))
    )
    return (
        f"Every experiment trains on exactly {options.train_tokens} tokens: fewer rows are repeated, more are cut. "
        f"Only the assistant's turns count for the loss.\nMemory of one command: {memory}. Time: {times}. "
        f"No network.\nA rehearsal comes first: prepare_data.py --limit {options.debug_rows}"
        + ("" if options.rehearse == "never" else f", then {options.debug_tokens} training tokens")
        + f".\nCan be imported: {IMPORTABLE}; other packages only where the environment happens to have them."
    )


def _keys(fixed: Collection[str]) -> str:
    properties = TrainConfig.model_json_schema()["properties"]
    defaults = default_values()
    full = defaults["when"]["full"]
    return "\n".join(
        f"- {name}: {_values(schema)} (default {defaults[name]}"
        + (f"; with method full {full[name]})" if name in full else ")")
        + (f"; {schema['description']}" if "description" in schema else "")
        for name, schema in properties.items()
        if name not in fixed
    )


def _values(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_values(one) for one in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return "a list of names"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " ".join([str(schema.get("type", "text")), " and ".join(bounds)]).strip()


def _samples(benchmark: Benchmark, name: str, rows: Sequence[TrainingRow]) -> str:
    shown: list[str] = []
    for row in rows:
        value = {"id": row.id, "prompt": _prompt(benchmark, row), "answer": row.answer, "solution": row.solution}
        line = json.dumps(value, ensure_ascii=False)
        if len(line) <= LONGEST_SAMPLE:
            shown.append(line)
        if len(shown) == SAMPLES:
            break
    if not shown:
        return f"{name}: every row is longer than {LONGEST_SAMPLE} characters; none is shown"
    return untrusted(f"rows of {name}", "\n".join(shown))


def _prompt(benchmark: Benchmark, row: TrainingRow) -> str:
    (message,) = messages_of(benchmark, row.question)
    return message["content"]
