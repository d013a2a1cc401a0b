"""From messages to token ids and labels, through a model's own chat template."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ftagent.toolkit.data import Conversation, Message, Question
from ftagent.toolkit.errors import ToolkitError

IGNORED = -100
"""The label of a token that is not learnt."""


@dataclass(frozen=True)
class Row:
    """One tokenised conversation. `labels` are `ids` in assistant turns, their end included, else −100."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    cut: bool
    """True when `max_length` took labels away."""


def encode_conversation(
    tokenizer: Any, conversation: Conversation, stops: Collection[int], max_length: int, source: str
) -> Row:
    """Ids and labels of a row, at most `max_length` tokens.

    Prompt and reply are tokenised apart, because that is how the model will meet them when it predicts.
    `stops` are the ids that end a turn. Raises ToolkitError with `source` and line.
    """
    place = f"{source}:{conversation.line}"
    messages = conversation.messages
    refuse_special_tokens(tokenizer, messages, place)
    whole = render(tokenizer, messages, place)
    ids: list[int] = []
    labels: list[int] = []
    done = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start = _prefix(render(tokenizer, messages[:index], place, prompt=True), whole, done, place)
        end = _prefix(render(tokenizer, messages[: index + 1], place), whole, start, place)
        prompt = _tokenise(tokenizer, whole[done:start])
        reply = _tokenise(tokenizer, whole[start:end])
        learnt = _learnt(reply, stops)
        ids += prompt + reply
        labels += [IGNORED] * len(prompt) + reply[:learnt] + [IGNORED] * (len(reply) - learnt)
        done = end
    # What follows the last reply can teach nothing.
    while labels and labels[-1] == IGNORED:
        labels.pop()
    ids = ids[: len(labels)]
    return Row(tuple(ids[:max_length]), tuple(labels[:max_length]), len(ids) > max_length)


def encode_question(tokenizer: Any, question: Question, source: str) -> list[int]:
    """Ids of a prompt, to where the assistant's reply begins. Raises ToolkitError with `source` and line."""
    place = f"{source}:{question.line}"
    refuse_special_tokens(tokenizer, question.messages, place)
    return _tokenise(tokenizer, render(tokenizer, question.messages, place, prompt=True))


def render(tokenizer: Any, messages: Sequence[Message], place: str, prompt: bool = False) -> str:
    """The text of `messages` under the chat template. ToolkitError: no template, or it refuses them."""
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        raise ToolkitError("the model's tokenizer has no chat template; give an instruct model")
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt))
    except TemplateError as error:
        raise ToolkitError(f"{place}: the chat template refuses these messages: {error}") from error


def refuse_special_tokens(tokenizer: Any, messages: Sequence[Message], place: str) -> None:
    """A special token inside a text would be read as the end of a turn. Raises ToolkitError naming it."""
    for number, message in enumerate(messages, start=1):
        for token in tokenizer.all_special_tokens:
            if token in message["content"]:
                raise ToolkitError(f"{place}: message {number} contains the special token {token}; remove it")


def stop_tokens(tokenizer: Any, model: Any) -> frozenset[int]:
    """Ids that end a turn: the tokenizer's and those of the model's generation config."""
    found: set[int] = set()
    for value in (tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        found.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return frozenset(found)


def _tokenise(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _prefix(text: str, whole: str, least: int, place: str) -> int:
    if len(text) < least or not whole.startswith(text):
        raise ToolkitError(
            f"{place}: the chat template rewrites earlier turns, so labels cannot be placed; "
            "give conversations with one assistant message, the last"
        )
    return len(text)


def _learnt(reply: Sequence[int], stops: Collection[int]) -> int:
    """How many tokens of a rendered reply are the model's own: through its end-of-turn token."""
    for index in range(len(reply) - 1, -1, -1):
        if reply[index] in stops:
            return index + 1
    return len(reply)
