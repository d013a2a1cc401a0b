"""Mapping by plain functions, for callers with few conversations; `Mapper` is quicker for many."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ftagent.toolkit.data import Conversation, Message, Question
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.mapping.mapper import Mapper
from ftagent.toolkit.mapping.registry import load_map_function
from ftagent.toolkit.mapping.types import Mapping
from ftagent.toolkit.tokens import Row

TRAINED = "train.yaml"
"""The effective configuration, which a training leaves beside its result."""
MERGED = "merge.json"
"""What merging leaves beside a model; JSON is YAML, too."""


def map_conversation(
    tokenizer: Any, conversation: Conversation, mapping: Mapping, stops: Collection[int], max_length: int, source: str
) -> list[Row]:
    """Rows of one conversation; see `Mapper.conversation`."""
    return Mapper(tokenizer, mapping, stops).conversation(conversation, max_length, source)


def map_reply(
    tokenizer: Any,
    prompt: Sequence[Message],
    reply: Sequence[Message],
    mapping: Mapping,
    stops: Collection[int],
    max_length: int,
    source: str,
) -> Row:
    """The row of a prompt and its reply, labels on the reply; `source` names file and line. See `Mapper.reply`."""
    return Mapper(tokenizer, mapping, stops).reply(prompt, reply, max_length, source)


def map_prompt(tokenizer: Any, messages: Sequence[Message], mapping: Mapping, source: str) -> list[int]:
    """Ids of the prompt that training had before a reply to `messages`; `source` names file and line."""
    return Mapper(tokenizer, mapping).prompt(messages, source)


def encode_question(tokenizer: Any, question: Question, source: str, mapping: Mapping | None = None) -> list[int]:
    """Ids of a prompt, to where the assistant's reply begins, as a training with `mapping` had it.

    `Mapper` is quicker for many. Raises ToolkitError with `source` and line.
    """
    return Mapper(tokenizer, mapping).prompt(question.messages, f"{source}:{question.line}")


def adopt_template(tokenizer: Any, mapping: Mapping) -> None:
    """Give `tokenizer` the chat template that the map function brings, if it brings one.

    Called once after loading, so that the end of turn is among `stop_tokens` and the template is saved with the model.
    """
    function = load_map_function(mapping.function)
    template = function.template(tokenizer)
    if template is None:
        return
    tokenizer.chat_template = template
    end = Mapper(tokenizer, mapping).end_in_history.strip()
    if end:
        tokenizer.eos_token = end


def mapping_of(folder: Path) -> Mapping:
    """The mapping that the model or adapter in `folder`, a result or a checkpoint, was trained with.

    It is read from the train.yaml beside it, or from the merge.json of a merged model; the default where there is
    neither. Raises ToolkitError: not readable.
    """
    import yaml

    path = next((folder / name for name in (TRAINED, MERGED) if (folder / name).is_file()), None)
    if path is None:
        return Mapping()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ToolkitError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        return Mapping()
    return Mapping(str(values.get("map_function", "auto")), str(values.get("thinking", "auto")))
