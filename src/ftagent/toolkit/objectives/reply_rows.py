"""Preferences and problems as token ids, through the model's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftagent.toolkit.data import Conversation, Message, Preference, Problem, Question
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.objectives.dpo import PreferenceRows
from ftagent.toolkit.objectives.grpo import Prompt
from ftagent.toolkit.tokens import IGNORED, Row, encode_conversation, encode_question, stop_tokens


def encode_preferences(
    model: Any, tokenizer: Any, preferences: Sequence[Preference], max_length: int, source: str
) -> list[PreferenceRows]:
    """Both replies of each pair after their prompt. Raises ToolkitError with `source` and line."""
    stops = stop_tokens(tokenizer, model)

    def reply(pair: Preference, messages: Sequence[Message]) -> Row:
        whole = Conversation((*pair.prompt, *messages), pair.line)
        row = encode_conversation(tokenizer, whole, stops, max_length, source)
        prompt = len(encode_question(tokenizer, Question("", pair.prompt, pair.line), source))
        return Row(row.ids, (*[IGNORED] * min(prompt, len(row.ids)), *row.labels[prompt:]), row.cut)

    return [PreferenceRows(reply(pair, pair.chosen), reply(pair, pair.rejected)) for pair in preferences]


def encode_problems(
    model: Any, tokenizer: Any, problems: Sequence[Problem], max_new_tokens: int, source: str
) -> list[Prompt]:
    """Prompts to where the reply begins. Raises ToolkitError with `source` and line, also where prompt and reply would
    be longer than the model takes."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    prompts = []
    for problem in problems:
        ids = encode_question(tokenizer, Question("", problem.prompt, problem.line), source)
        if most is not None and len(ids) + max_new_tokens > most:
            raise ToolkitError(
                f"{source}:{problem.line}: {len(ids)} tokens and grpo_max_new_tokens {max_new_tokens} "
                f"exceed the model's {most}"
            )
        prompts.append(Prompt(problem, tuple(ids)))
    return prompts


def teaches(pair: PreferenceRows) -> bool:
    """Whether both replies have a label left: what `max_length` cut away whole can be compared with nothing."""
    return all(any(label != IGNORED for label in row.labels[1:]) for row in (pair.chosen, pair.rejected))
