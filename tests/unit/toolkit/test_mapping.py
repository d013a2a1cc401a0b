"""Rows against an oracle that knows each family's format by hand and asks the template for prompts alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftagent.toolkit.data import Conversation, Question
from ftagent.toolkit.mapping import Mapper, Mapping, encode_question, map_conversation, map_prompt, map_reply
from ftagent.toolkit.tokens import IGNORED

from .families import FAMILIES, Family, stops_of, tokenizer_of

MARKUP = [
    "\n\nx ",
    " 12 + 34 = 46",
    "  ",
    "",
    "\n",
    "`code`\t",
    "é漢字🙂",
    "assistant\n",
    "im_end",
    "<b>a</b>",
    "[INST]",
    "|>",
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=25).filter(lambda text: "<" not in text) | (
    st.sampled_from(MARKUP)
)
"""No text holds a special token or a think tag; these have tests of their own."""


@dataclass(frozen=True)
class Turn:
    """`written` says where the data has the reasoning: under its key, or in <think> tags inside the content."""

    user: str
    thinking: str
    content: str
    written: str


TURNS = st.lists(
    st.builds(Turn, TEXT, st.just("") | TEXT, TEXT, st.sampled_from(["key", "key", "tags"])), min_size=1, max_size=4
)
SYSTEM = st.none() | TEXT


def data(system: str | None, turns: list[Turn]) -> tuple[dict[str, str], ...]:
    """The conversation as a file would have it."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    for turn in turns:
        messages.append({"role": "user", "content": turn.user})
        if turn.written == "tags":
            reply = {"content": f"<think>{turn.thinking}</think>{turn.content}"}
        else:
            reply = {"content": turn.content, "thinking": turn.thinking}
        messages.append({"role": "assistant", **reply})
    return tuple(messages)


def parts(turn: Turn) -> tuple[str, str]:
    """(reasoning, content) as meant: blank reasoning is none, line ends after a tag are not of the content."""
    thinking = turn.thinking if turn.thinking.strip() else ""
    return thinking, turn.content.lstrip("\n") if turn.written == "tags" else turn.content


def tokens(family: Family, text: str) -> list[int]:
    return list(tokenizer_of(family)(text, add_special_tokens=False)["input_ids"])


def inference(family: Family, system: str | None, turns: list[Turn], user: str, mode: str) -> list[int]:
    """What a chat program has before it generates: the tokenizer's own rendering and tokenising in one go."""
    messages: list[dict[str, str]] = [] if system is None else [{"role": "system", "content": system}]
    for turn in turns:
        thinking, content = parts(turn)
        keeps = family.takes_thinking and thinking and mode != "drop"
        messages.append({"role": "user", "content": turn.user})
        messages.append({"role": "assistant", "content": content, **({"reasoning_content": thinking} if keeps else {})})
    messages.append({"role": "user", "content": user})
    if system is not None and not family.takes_system:
        messages[:2] = [{"role": "user", "content": f"{system}\n\n{messages[1]['content']}"}]
    switch = {"enable_thinking": mode != "drop"} if family.switch else {}
    return list(
        tokenizer_of(family).apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False, **switch
        )
    )


def generation(family: Family, turn: Turn, mode: str) -> list[int]:
    thinking, content = parts(turn)
    return tokens(family, family.silent(content) if mode == "drop" else family.reply(thinking, content))


Rows = list[tuple[list[int], list[int]]]


def oracle(family: Family, system: str | None, turns: list[Turn], mode: str) -> Rows:
    """(ids, labels) of each row, one token after the other."""
    end, past = (tokens(family, text)[0] for text in (family.end, family.history_end or family.end))
    rows: Rows = []
    for number, turn in enumerate(turns):
        if mode == "last_only" and turn is not turns[-1]:
            continue
        prompt = inference(family, system, turns[:number], turn.user, mode)
        reply = generation(family, turn, mode)
        seen = [*rows[-1][0][:-1], past] if rows else []
        if mode == "keep_all" and rows:
            prompt = seen + tokens(family, family.between(turn.user))
        if not rows or prompt[: len(seen)] != seen:
            rows.append(([], []))
            seen = []
        ids, labels = rows[-1]
        assert not ids or ids[-1] == end
        ids[:] = seen
        for token in prompt[len(seen) :]:
            ids.append(token)
            labels.append(IGNORED)
        for token in reply:
            ids.append(token)
            labels.append(token)
    return rows


def mapped(family: Family, messages: tuple[dict[str, str], ...], mapping: Mapping, most: int = 100_000) -> list[Any]:
    return map_conversation(
        tokenizer_of(family), Conversation(messages, 1), mapping, stops_of(family), most, "data.jsonl"
    )


@pytest.mark.parametrize("mode", ["split_turns", "drop", "last_only"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(system=SYSTEM, turns=TURNS)
def test_rows_are_what_a_model_sees_and_says(family: Family, mode: str, system: str | None, turns: list[Turn]) -> None:
    rows = mapped(family, data(system, turns), Mapping("auto", mode))
    assert [(list(row.ids), list(row.labels)) for row in rows] == oracle(family, system, turns, mode)
    assert not any(row.cut for row in rows)


# Templates where every turn stays as it was written have nothing to keep that `split_turns` would not.
@pytest.mark.parametrize(
    "name", ["qwen2_5", "qwen3", "qwen3_5_think", "gptoss", "deepseek_r1_distill", "llama3", "glm4moe"]
)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(system=SYSTEM, turns=TURNS)
def test_keep_all_is_one_row_with_all_reasoning(name: str, system: str | None, turns: list[Turn]) -> None:
    family = next(family for family in FAMILIES if family.name == name)
    (row,) = mapped(family, data(system, turns), Mapping("auto", "keep_all"))
    assert [(list(row.ids), list(row.labels))] == oracle(family, system, turns, "keep_all")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(system=SYSTEM, turns=TURNS)
def test_each_turn_is_learnt_once_in_its_inference_context(
    family: Family, system: str | None, turns: list[Turn]
) -> None:
    learnt = []
    for row in mapped(family, data(system, turns), Mapping("auto", "split_turns")):
        starts = [n for n, label in enumerate(row.labels) if label != IGNORED and row.labels[n - 1] == IGNORED]
        for start in starts:
            ends = (n for n in range(start, len(row.labels)) if row.labels[n] == IGNORED)
            learnt.append((list(row.ids[:start]), list(row.labels[start : next(ends, len(row.labels))])))
    expected = [
        (inference(family, system, turns[:number], turn.user, "split_turns"), generation(family, turn, "split_turns"))
        for number, turn in enumerate(turns)
    ]
    # A prompt that is empty but for the turn before would join two replies into one run of labels.
    assert learnt == expected


@pytest.mark.parametrize("mode", ["auto", "split_turns", "drop"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(system=SYSTEM, turns=TURNS)
def test_prompts_are_those_of_training(family: Family, mode: str, system: str | None, turns: list[Turn]) -> None:
    messages, mapping = data(system, turns), Mapping("auto", mode)
    prompt = encode_question(tokenizer_of(family), Question("q", messages[:-1], 1), "f", mapping)
    assert prompt == map_prompt(tokenizer_of(family), messages[:-1], mapping, "f:1")
    row = mapped(family, messages, mapping)[-1]
    assert list(row.ids[: len(prompt)]) == prompt
    assert row.labels[len(prompt) - 1] == IGNORED != row.labels[len(prompt)]
    if mode != "auto":
        assert prompt == inference(family, system, turns[:-1], turns[-1].user, mode)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(system=SYSTEM, turns=TURNS)
def test_a_preference_pair_has_labels_on_its_reply_alone(family: Family, system: str | None, turns: list[Turn]) -> None:
    messages = data(system, turns)
    row = map_reply(
        tokenizer_of(family),
        messages[:-1],
        messages[-1:],
        Mapping("auto", "split_turns"),
        stops_of(family),
        9999,
        "f:1",
    )
    prompt = inference(family, system, turns[:-1], turns[-1].user, "split_turns")
    reply = generation(family, turns[-1], "split_turns")
    assert (list(row.ids), list(row.labels)) == (prompt + reply, [IGNORED] * len(prompt) + reply)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(system=SYSTEM, turns=TURNS, most=st.integers(2, 80))
def test_what_is_cut_is_counted(family: Family, system: str | None, turns: list[Turn], most: int) -> None:
    rows = mapped(family, data(system, turns), Mapping("auto", "split_turns"), most)
    whole = oracle(family, system, turns, "split_turns")
    assert [(list(row.ids), list(row.labels)) for row in rows] == [(ids[:most], labels[:most]) for ids, labels in whole]
    for row, (_, labels) in zip(rows, whole, strict=True):
        lost = sum(label != IGNORED for label in labels) - sum(label != IGNORED for label in row.labels)
        assert row.cut == (lost > 0)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_stops_are_found_where_nobody_names_them(family: Family) -> None:
    """A generation config may lack the family's end of turn."""
    turns = [Turn("a", "b", "c", "key"), Turn("d", "", "e\n", "key"), Turn("f", "g", " end", "key")]
    rows = map_conversation(
        tokenizer_of(family), Conversation(data("s", turns), 1), Mapping("auto", "split_turns"), (), 9999, "f"
    )
    assert [(list(row.ids), list(row.labels)) for row in rows] == oracle(family, "s", turns, "split_turns")


def test_many_conversations_give_the_rows_of_each() -> None:
    family = FAMILIES[2]
    conversations = [
        Conversation(data("s", [Turn(f"u{n}", "t" * (n % 3), f"c{n}", "key")] * (1 + n % 3)), n + 1) for n in range(600)
    ]
    mapper = Mapper(tokenizer_of(family), Mapping(), stops_of(family))
    together = list(mapper.conversations(conversations, 50, "f"))
    alone = [row for one in conversations for row in mapped(family, one.messages, Mapping(), 50)]
    assert together == alone
    assert len(together) > len(conversations)
