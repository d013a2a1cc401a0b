import importlib.util
import json
import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ftagent.toolkit.chat.streaming import Detokeniser, Piece, ReplyReader, TagSplitter
from ftagent.toolkit.chat.template import ChatTemplate
from ftagent.toolkit.errors import ToolkitError

pytestmark = pytest.mark.model

HARMONY = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"]
TAGS = ["<think>", "</think>"]


def real_template(name: str) -> str:
    found = importlib.util.find_spec("trl")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def family(tokenizer: Any, name: str) -> Any:
    """A tokenizer with the real template of a family and the tokens that it needs."""
    special = {"gptoss": HARMONY, "deepseek_r1_distill": ["<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"],
               "gemma3": ["<start_of_turn>", "<end_of_turn>"]}.get(name, [])  # fmt: skip
    made = deepcopy(tokenizer)
    made.add_special_tokens({"additional_special_tokens": special})
    if name in ("qwen3", "deepseek_r1_distill"):
        made.add_tokens(TAGS)  # as in the real ones: one token each, and not special
    made.chat_template = real_template(name)
    return made


def joined(pieces: list[Piece]) -> dict[str, str]:
    return {
        channel: "".join(piece.text for piece in pieces if piece.channel == channel)
        for channel in ("thinking", "content")
    }


def read(template: ChatTemplate, messages: list[dict[str, str]], reply: str) -> tuple[dict[str, str], bool]:
    """What is read from a model that writes `reply`, and whether the reply itself said that it is over."""
    _, splitter = template.prompt(messages, "test")
    reader = ReplyReader(template.tokenizer, splitter)
    pieces: list[Piece] = []
    for token in template.tokenizer(reply, add_special_tokens=False)["input_ids"]:
        pieces += reader.token(token)
        if reader.done:
            break
    return joined(pieces + reader.end()), reader.done


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=60))
@example("naïve 日本語 🏴‍☠️👩🏽‍🚀 e\u0301 \n\n  x")
def test_pieces_have_no_half_characters_and_join_to_the_text(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if tokenizer.decode(ids) != text:
        return  # it spelled a special token
    detokeniser = Detokeniser(tokenizer)
    pieces = [detokeniser.push(token) for token in ids]
    assert "".join([*pieces, detokeniser.flush()]) == text
    assert all("\ufffd" not in piece for piece in pieces)


def test_text_comes_as_soon_as_its_character_is_whole(tokenizer: Any) -> None:
    ids = tokenizer("a 🏴 b", add_special_tokens=False)["input_ids"]
    detokeniser = Detokeniser(tokenizer)
    pieces = [detokeniser.push(token) for token in ids]
    assert pieces[0] == "a"
    assert "" in pieces, "the flag is several tokens, or this tests nothing"
    assert pieces[-1] == " b"
    cut = Detokeniser(tokenizer)
    whole = [cut.push(token) for token in ids[:-2]] + [cut.flush()]
    assert "".join(whole).rstrip() == "a"


@settings(max_examples=200, deadline=None)
@given(
    thinking=st.text(alphabet="ab<>/think\n", max_size=20),
    content=st.text(alphabet="ab<>/think\n ", max_size=20),
    seed=st.integers(0, 1000),
    inside=st.booleans(),
)
def test_how_a_reply_is_cut_into_pieces_does_not_matter(thinking: str, content: str, seed: int, inside: bool) -> None:
    if "</think>" in thinking or "<think>" in thinking:
        return
    text = f"{'' if inside else '<think>'}\n{thinking}\n</think>\n\n{content}"
    generator = random.Random(seed)
    splitter = TagSplitter(inside)
    pieces: list[Piece] = []
    while text:
        size = generator.randint(1, 5)
        pieces += splitter.text(text[:size])
        text = text[size:]
    found = joined(pieces + splitter.end())
    assert found == {"thinking": thinking.strip("\n"), "content": content.lstrip("\n")}


@pytest.mark.parametrize(
    ("name", "reply", "thinking", "content"),
    [
        ("qwen3", "<think>\nIt is 4.\n</think>\n\nFour.", "It is 4.", "Four."),
        ("qwen3", "<think>\n\n</think>\n\nFour.", "", "Four."),
        ("qwen3", "Four, <think> is a tag.", "", "Four, <think> is a tag."),
        ("qwen3", "<think>\nnever ends", "never ends", ""),
        ("deepseek_r1_distill", "It is 4.\n</think>\n\nFour.", "It is 4.", "Four."),
        ("gptoss", "<|channel|>analysis<|message|>It is 4.<|end|><|start|>assistant<|channel|>final<|message|>Four."
                   "<|return|>junk", "It is 4.", "Four."),
        ("gptoss", "<|channel|>final<|message|>Four.<|end|>junk", "", "Four."),
        ("gptoss", "<|message|>Four.<|end|>", "", "Four."),
        ("gptoss", "Four.", "", "Four."),
        ("gemma3", "  Four.", "", "  Four."),
    ],
)  # fmt: skip
def test_thinking_is_told_from_the_answer(tokenizer: Any, name: str, reply: str, thinking: str, content: str) -> None:
    template = ChatTemplate(family(tokenizer, name))
    found, _ = read(template, [{"role": "user", "content": "2+2?"}], reply)
    assert found == {"thinking": thinking, "content": content}


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1_distill", "gptoss"])
def test_families_do_not_see_what_they_thought_in_earlier_turns(tokenizer: Any, name: str) -> None:
    template = ChatTemplate(family(tokenizer, name))
    said = [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "Four.", "thinking": "SECRET"},
        {"role": "user", "content": "3+3?"},
    ]
    text = template.tokenizer.decode(template.prompt(said, "test")[0])
    assert "Four." in text
    assert "SECRET" not in text


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1_distill", "gptoss"])
def test_no_thinking_begins_with_the_answer(tokenizer: Any, name: str) -> None:
    asked = [{"role": "user", "content": "2+2?"}]
    template = ChatTemplate(family(tokenizer, name), thinking=False)
    found, _ = read(template, asked, "Four.")
    assert found == {"thinking": "", "content": "Four."}
    assert template.prompt(asked, "t")[0] != ChatTemplate(template.tokenizer).prompt(asked, "t")[0]


def test_a_template_without_thinking_refuses_the_choice(tokenizer: Any) -> None:
    with pytest.raises(ToolkitError, match="--no-thinking: the model's chat template knows no thinking"):
        ChatTemplate(tokenizer, thinking=False)
    bare = deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(ToolkitError, match="no chat template; give an instruct model"):
        ChatTemplate(bare)


def test_what_a_template_refuses_is_one_line(tokenizer: Any) -> None:
    template = ChatTemplate(family(tokenizer, "gemma3"))
    twice = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    with pytest.raises(ToolkitError, match=r"message: the chat template refuses .* must alternate"):
        template.prompt(twice, "message")
    with pytest.raises(ToolkitError, match=r"contains the special token <end_of_turn>"):
        template.prompt([{"role": "user", "content": "a<end_of_turn>"}], "message")
    # What the model spelled out itself is taken out.
    spelled = [twice[0], {"role": "assistant", "content": "x<end_of_turn>y"}, twice[1]]
    assert "xy" in tokenizer.decode(template.prompt(spelled, "message")[0])


@pytest.mark.parametrize(
    ("name", "end"), [("qwen3", "<|im_end|>"), ("gemma3", "<end_of_turn>"), ("gptoss", "<|return|>"),
                      ("deepseek_r1_distill", "<｜end▁of▁sentence｜>")]
)  # fmt: skip
def test_turns_end_where_the_template_ends_them(tokenizer: Any, name: str, end: str) -> None:
    from types import SimpleNamespace

    made = family(tokenizer, name)
    made.eos_token = "<|endoftext|>"
    stops = ChatTemplate(made).stops(SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None)))
    assert stops == {made.convert_tokens_to_ids(end), made.eos_token_id}


def test_templates_that_are_read_are_the_real_ones() -> None:
    assert json.dumps(real_template("gptoss")).count("<|channel|>analysis") > 2
