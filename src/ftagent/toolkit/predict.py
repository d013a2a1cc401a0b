"""`python -m ftagent.toolkit.predict predict.yaml`: a model's answers to questions."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from ftagent.toolkit.command import Emit, run_command
from ftagent.toolkit.config import PredictConfig
from ftagent.toolkit.data import Question, read_questions
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.files import content_of, fingerprint, sha256, write_atomically

Outputs = dict[tuple[str, int], str]
"""(question id, sample number from 0) → text."""


def predict(config: PredictConfig, emit: Emit) -> None:
    """Write `config.output`, whole or not at all. What a killed predict had finished is not generated again.

    Raises ToolkitError for a request that cannot be done.
    """
    questions = read_questions(config.questions)
    wanted = [(question.id, sample) for question in questions for sample in range(config.samples)]
    partial = config.output.with_name(config.output.name + ".partial")
    done = _open_partial(partial, _identity(config))
    if done:
        emit({"event": "resumed", "predicted": len(done), "of": len(wanted)})
    if len(done) < len(wanted):
        with partial.open("a", encoding="utf-8") as stream:
            _generate(config, questions, done, stream, emit)
    lines = [
        {"id": question.id, "outputs": [done[question.id, sample] for sample in range(config.samples)]}
        for question in questions
    ]
    write_atomically(config.output, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    partial.unlink()
    emit({"event": "saved", "output": str(config.output), "predicted": len(done), "of": len(wanted)})


def _generate(config: PredictConfig, questions: Sequence[Question], done: Outputs, stream: IO[str], emit: Emit) -> None:
    """Fill `done`; each output goes to `stream` as it ends."""
    from ftagent.toolkit.generate import Draft, generate
    from ftagent.toolkit.kernels.select import speed_up
    from ftagent.toolkit.mapping import Mapper, adopt_template, mapping_of
    from ftagent.toolkit.models import load_model, merge_adapter
    from ftagent.toolkit.tokens import stop_tokens

    model, tokenizer = load_model(config.model, config.dtype, config.device)
    mapping = mapping_of(Path(config.adapter or config.model))
    adopt_template(tokenizer, mapping)
    mapper = Mapper(tokenizer, mapping)
    if config.adapter:
        model = merge_adapter(model, Path(config.adapter))
    speed_up(model.requires_grad_(False))
    total = len(questions) * config.samples
    drafts = []
    for question in questions:
        place = f"{config.questions}:{question.line}"
        prompt = mapper.prompt(question.messages, place)
        _refuse_too_long(model, prompt, config, place)
        drafts += [
            Draft(question.id, sample, prompt) for sample in range(config.samples) if (question.id, sample) not in done
        ]

    def finished(ended: list[Draft]) -> None:
        for draft in ended:
            text = tokenizer.decode(draft.new, skip_special_tokens=True)
            done[draft.id, draft.sample] = text
            stream.write(json.dumps([draft.id, draft.sample, text]) + "\n")
        stream.flush()
        emit({"predicted": len(done), "of": total})

    generate(model, drafts, stop_tokens(tokenizer, model), config, finished)


def _refuse_too_long(model: Any, prompt: Sequence[int], config: PredictConfig, place: str) -> None:
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and len(prompt) + config.max_new_tokens > most:
        raise ToolkitError(
            f"{place}: {len(prompt)} tokens and {config.max_new_tokens} new ones exceed the model's {most}"
        )


def _identity(config: PredictConfig) -> str:
    """Same identity, same outputs: the config but for batching, the questions, the adapter."""
    values = config.model_dump(mode="json", exclude={"output", "questions", "batch_size", "batch_tokens"})
    try:
        adapter = sha256(Path(config.adapter) / "adapter_model.safetensors") if config.adapter else ""
    except OSError as error:
        raise ToolkitError(f"adapter {config.adapter!r}: has no adapter_model.safetensors") from error
    weights = content_of(Path(config.model))
    return fingerprint(
        {"config": values, "questions": sha256(config.questions), "adapter": adapter, "weights": weights}
    )


def _open_partial(path: Path, identity: str) -> Outputs:
    """Outputs that a killed predict of the same identity left; the file then holds exactly these."""
    done: Outputs = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
        if lines and lines[0] == identity:
            # The last piece is empty, or a line that the kill tore.
            for line in lines[1:-1]:
                question, sample, text = json.loads(line)
                done[question, sample] = text
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = "".join(json.dumps([*key, text]) + "\n" for key, text in done.items())
        write_atomically(path, f"{identity}\n{kept}")
    except (ValueError, TypeError) as error:
        raise ToolkitError(f"{path}: damaged ({error}); remove it to start again") from error
    except OSError as error:
        raise ToolkitError(f"{path}: cannot be written: {error.strerror}") from error
    return done


if __name__ == "__main__":
    sys.exit(run_command("predict", sys.argv[1:], PredictConfig, predict))
