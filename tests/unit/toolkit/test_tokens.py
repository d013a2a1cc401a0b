from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ftagent.toolkit.data import Conversation, Question
from ftagent.toolkit.mapping import Mapper, encode_question
from ftagent.toolkit.tokens import IGNORED, Row

pytestmark = pytest.mark.model

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(lambda text: "<|" not in text) | (
    st.sampled_from(["\n\nx ", " 12 + 34 = 46", "  ", "", "\n", "`code`\t", "é漢字🙂", "assistant\n", "im_end"])
)


def message(role: str) -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries({"role": st.just(role), "content": TEXT})


TURNS = st.lists(st.tuples(message("user"), message("assistant")), min_size=1, max_size=4)
CONVERSATIONS = st.builds(
    lambda system, turns: (*system, *(message for turn in turns for message in turn)),
    st.lists(message("system"), max_size=1),
    TURNS,
)


def mapped(tokenizer: Any, messages: tuple[dict[str, str], ...], most: int = 10_000) -> list[Row]:
    return Mapper(tokenizer, stops={tokenizer.eos_token_id}).conversation(Conversation(messages, 1), most, "f")


def oracle(tokenizer: Any, messages: tuple[dict[str, str], ...]) -> tuple[list[int], list[int]]:
    """Token by token from SmolLM2's published ChatML format, without its template."""
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    ids: list[int] = []
    labels: list[int] = []
    if messages[0]["role"] != "system":
        messages = ({"role": "system", "content": SYSTEM}, *messages)
    last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
    for index, message in enumerate(messages[: last + 1]):
        assistant = message["role"] == "assistant"
        content = encode(message["content"]) if assistant else []
        head = [start, *encode("assistant\n" if assistant else f"{message['role']}\n{message['content']}")]
        tail = [] if index == last else encode("\n")
        ids += [*head, *content, end, *tail]
        labels += [IGNORED] * len(head)
        labels += [*content, end] if assistant else [IGNORED]
        labels += [IGNORED] * len(tail)
    return ids, labels


def joined(tokenizer: Any, messages: tuple[dict[str, str], ...]) -> bool:
    """Whether a reply, once it is in the history, is cut into other tokens than when it was written: "\\n" + "\\nx"."""
    contents = [message["content"] for message in messages[:-1] if message["role"] == "assistant"]
    apart = [tokenizer.tokenize("\n") + tokenizer.tokenize(content) for content in contents]
    return [tokenizer.tokenize("\n" + content) for content in contents] != apart


@settings(max_examples=400, deadline=None, derandomize=True)
@given(messages=CONVERSATIONS)
def test_labels_equal_a_token_by_token_oracle(tokenizer: Any, messages: tuple[dict[str, str], ...]) -> None:
    rows = mapped(tokenizer, messages)
    if joined(tokenizer, messages):
        assert len(rows) > 1
        return
    ids, labels = oracle(tokenizer, messages)
    assert [(list(row.ids), list(row.labels), row.cut) for row in rows] == [(ids, labels, False)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(messages=CONVERSATIONS, most=st.integers(2, 60))
def test_a_row_that_is_too_long_loses_its_end_and_says_so(
    tokenizer: Any, messages: tuple[dict[str, str], ...], most: int
) -> None:
    assume(not joined(tokenizer, messages))
    (row,) = mapped(tokenizer, messages, most)
    ids, labels = oracle(tokenizer, messages)
    assert (list(row.ids), list(row.labels), row.cut) == (ids[:most], labels[:most], len(ids) > most)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(messages=CONVERSATIONS)
def test_a_prompt_is_what_training_saw_before_the_reply(tokenizer: Any, messages: tuple[dict[str, str], ...]) -> None:
    first = next(index for index, message in enumerate(messages) if message["role"] == "assistant")
    prompt = encode_question(tokenizer, Question("q", messages[:first], 1), "f")
    row = mapped(tokenizer, messages)[0]
    assert list(row.ids[: len(prompt)]) == prompt
    assert row.labels[len(prompt) - 1] == IGNORED
    assert row.labels[len(prompt)] == row.ids[len(prompt)]
