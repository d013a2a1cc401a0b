"""The search space: what data a model sees, in which form, and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftagent.core.types import Files, Parameter
from ftagent_llm.options import LlmOptions

SHORT_FORMATS = ("plain", "sentence", "boxed", "marked")
SOLUTION_FORMATS = ("solution", "solution_boxed", "marked")
ARITHMETIC_FORMATS = ("worked", "restated", *SHORT_FORMATS)
TEMPLATES = ("prepare_data.py", "train.yaml")


def build_space(options: LlmOptions, rows: int, formats: Sequence[str], model_layers: int) -> tuple[Parameter, ...]:
    """`rows`: how many there are to train on. `formats`: of answers, the default first. `model_layers`: of
    the base model (0: unknown)."""
    solutions = "solution" in formats
    layers = [n for n in options.layers if not model_layers or n < model_layers]
    lowest = min(rows, max(16, rows // 10))
    middle = (options.learning_rate_low * options.learning_rate_high**2) ** (1 / 3)
    return (
        Parameter("data_size", "int", default=rows, low=lowest, high=rows, log=True,
                  description="rows to train on; fewer are repeated more often under the same token budget"),
        _choice("difficulty", ("uniform", "easy", "hard"), "uniform",
                "which rows are preferred, by the length of question and answer"),
        _choice("answer_format", formats, formats[0], "form of the answers that the model is taught"),
        _choice("method", options.methods, options.methods[0], "adapters or all weights"),
        _choice("rank", options.ranks, _nearest(options.ranks, 16), "of the adapters"),
        _choice("layers", layers or (0,), _nearest(layers or (0,), 12), "adapters on the last N layers; 0 is all"),
        Parameter("learning_rate", "float", default=float(f"{middle:.2g}"), low=options.learning_rate_low,
                  high=options.learning_rate_high, log=True,
                  description=f"of LoRA; full training takes {options.full_learning_rate_ratio:g} of it"),
        _choice("schedule", ("linear", "cosine", "constant"), "linear", "of the learning rate after the warm-up"),
        Parameter("warmup_ratio", "float", default=0.05, low=0.0, high=0.2, description="share of the steps"),
        _choice("batch_size", options.batch_sizes, _nearest(options.batch_sizes, 8), "rows per optimiser step"),
        _choice("max_length", options.max_lengths, max(options.max_lengths) if solutions else options.max_lengths[0],
                "most tokens per row; longer rows lose their end"),
    )  # fmt: skip


def render(params: Mapping[str, Any], space: Sequence[Parameter], options: LlmOptions, seed: int) -> Files:
    """The files of an experiment; the defaults of `space` where `params` is silent."""
    import jinja2

    values = {parameter.name: params.get(parameter.name, parameter.default) for parameter in space}
    if values["method"] == "full":
        values["learning_rate"] = values["learning_rate"] * options.full_learning_rate_ratio
    values["learning_rate"] = float(f"{values['learning_rate']:.4g}")
    values["warmup_ratio"] = round(values["warmup_ratio"], 4)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return {name: environment.get_template(f"{name}.jinja").render(values, seed=seed) for name in TEMPLATES}


def read_prompts() -> dict[str, str]:
    """The scenario's prompts by name."""
    folder = Path(__file__).parent / "prompts"
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jinja"))}


def _choice(name: str, choices: Sequence[Any], default: Any, description: str) -> Parameter:
    return Parameter(name, "choice", default=default, choices=tuple(choices), description=description)


def _nearest(values: Sequence[int], wished: int) -> int:
    return min(values, key=lambda value: (abs(value - wished), value))
