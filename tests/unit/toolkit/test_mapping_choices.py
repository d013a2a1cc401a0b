"""What is refused, what `auto` finds out, plug-ins, ChatML for models without a template, and tokenising in pieces."""

from __future__ import annotations

import copy
import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftagent.toolkit.batches import pack
from ftagent.toolkit.data import Conversation, Question
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.mapping import (
    Mapper,
    Mapping,
    adopt_template,
    encode_question,
    load_map_function,
    map_function_names,
    mapping_of,
)
from ftagent.toolkit.mapping.segments import Tokeniser
from ftagent.toolkit.tokens import IGNORED, Row

from .families import FAMILIES, Family, stops_of, template, tokenizer_of

BY_NAME = {family.name: family for family in FAMILIES}
QWEN3, HARMONY, R1, GEMMA = (BY_NAME[name] for name in ("qwen3", "gptoss", "deepseek_r1_distill", "gemma"))
ASKED = {"role": "user", "content": "2 + 2?"}


def said(content: str, **more: str) -> dict[str, str]:
    return {"role": "assistant", "content": content, **more}


def rows(family: Family, messages: tuple[dict[str, str], ...], mapping: Mapping | None = None) -> list[Row]:
    mapper = Mapper(tokenizer_of(family), mapping, stops_of(family))
    return mapper.conversation(Conversation(messages, 7), 9999, "data.jsonl")


def learnt(family: Family, row: Row) -> str:
    return str(tokenizer_of(family).decode([label for label in row.labels if label != IGNORED]))


def with_template(family: Family, source: str | None) -> Any:
    tokenizer = copy.deepcopy(tokenizer_of(family))
    tokenizer.chat_template = source
    return tokenizer


@pytest.mark.parametrize(
    ("family", "messages", "says"),
    [
        (QWEN3, (ASKED, {"role": "tool", "content": "4"}, said("4")), "message 2 is a tool turn; tools are not"),
        (QWEN3, (ASKED, said("4", tool_calls="x"), ASKED, said("4")), "message 2 is a tool turn"),
        (QWEN3, (ASKED, said("4"), ASKED), "message 3, the last, has role user; a conversation to learn from ends"),
        (QWEN3, (ASKED, said("a<|im_end|>b")), r"message 2 contains the special token <|im_end|>; remove it"),
        (QWEN3, (ASKED, said("4", thinking="a<|endoftext|>")), "message 2 contains the special token <|endoftext|>"),
        (QWEN3, ({**ASKED, "content": "<|im_start|>"}, said("4")), "message 1 contains the special token <|im_start|>"),
        (QWEN3, (said("4"),), "no message comes before the assistant's"),
        (QWEN3, (), "has no messages"),
        (QWEN3, (ASKED, said("4 </think> 5")), "takes something away from the content of message 2"),
        (R1, (ASKED, said("4 </think> 5")), "takes something away from the content of message 2"),
        (GEMMA, (ASKED, ASKED, said("4")), "the chat template refuses these messages: Conversation roles must"),
        (HARMONY, (ASKED, said("<|channel|>final<|message|>4")), "contains the special token <|channel|>"),
    ],
)
def test_a_bad_conversation_is_one_line(family: Family, messages: tuple[dict[str, str], ...], says: str) -> None:
    with pytest.raises(ToolkitError, match=r"^data\.jsonl:7: [^\n]*$") as error:
        rows(family, messages)
    assert says in str(error.value)


def test_marks_of_turns_are_refused_even_where_the_tokenizer_calls_them_ordinary() -> None:
    """DeepSeek's <｜User｜> is an added token that is not special; <think> is one that texts may hold."""
    from tokenizers import AddedToken

    marks = tuple(token for token in R1.special if token != "<｜User｜>")
    made = copy.deepcopy(tokenizer_of(dataclasses.replace(R1, special=marks)))
    made.add_tokens([AddedToken("<｜User｜>", normalized=False)])
    assert "<｜User｜>" not in made.all_special_tokens
    with pytest.raises(ToolkitError, match="f:1: message 1 contains the special token <｜User｜>"):
        encode_question(made, Question("q", ({"role": "user", "content": "a<｜User｜>b"},), 1), "f")
    assert encode_question(made, Question("q", ({"role": "user", "content": "a<think>b"},), 1), "f")


def test_think_tags_that_are_special_tokens_are_read_as_reasoning() -> None:
    tokenizer = copy.deepcopy(tokenizer_of(QWEN3))
    tokenizer.add_special_tokens({"extra_special_tokens": ["<think>", "</think>"]})
    mapper = Mapper(tokenizer, None, stops_of(QWEN3))
    (row,) = mapper.conversation(Conversation((ASKED, said("<think>\nt\n</think>\n\n4")), 1), 99, "f")
    assert (
        tokenizer.decode([label for label in row.labels if label != IGNORED]) == "<think>\nt\n</think>\n\n4<|im_end|>"
    )
    with pytest.raises(ToolkitError, match="f:1: message 2 contains the special token <think>"):
        mapper.conversation(Conversation((ASKED, said("4 <think>")), 1), 99, "f")


@pytest.mark.parametrize(
    ("name", "thinking"),
    [("qwen3", "split_turns"), ("qwen3_5_think", "split_turns"), ("qwen3_5_nothink", "drop"), ("gptoss", "drop"),
     ("deepseek_r1_distill", "split_turns"), ("gemma3", "split_turns"), ("gemma4", "drop"), ("phi3_5", "split_turns")],
)  # fmt: skip
def test_auto_thinks_as_the_template_does_by_itself(name: str, thinking: str) -> None:
    assert Mapper(with_template(QWEN3, template(name))).thinking == thinking


def test_auto_leaves_the_switch_of_a_template_alone() -> None:
    """Whoever else runs the model renders the template without it."""
    for name in ("qwen3", "qwen3_5_nothink", "qwen3_5_think", "glm4moe"):
        tokenizer = with_template(QWEN3, template(name))
        plain = tokenizer.apply_chat_template([ASKED], add_generation_prompt=True, tokenize=True, return_dict=False)
        assert Mapper(tokenizer).prompt([ASKED], "f:1") == plain


def test_harmony_learns_the_final_channel_unless_asked() -> None:
    messages = (ASKED, said("4", thinking="two and two"), ASKED, said("four"))
    final = "<|channel|>final<|message|>{}<|return|>"
    (row,) = rows(HARMONY, messages, Mapping("gpt_oss"))
    assert learnt(HARMONY, row) == final.format("4") + final.format("four")
    end, past = tokenizer_of(HARMONY).convert_tokens_to_ids(["<|return|>", "<|end|>"])
    first = row.labels.index(end)
    assert (row.ids[first], row.ids[-1]) == (past, end)
    packed = pack([row])
    assert (packed.ids, packed.targets) == (list(row.ids), [label for label in row.labels if label != IGNORED])
    first, _ = rows(HARMONY, messages, Mapping("gpt_oss", "split_turns"))
    analysis = "<|channel|>analysis<|message|>two and two<|end|><|start|>assistant"
    assert learnt(HARMONY, first) == analysis + final.format("4")


@pytest.mark.parametrize(
    ("name", "thinking", "prompt", "reply"),
    [
        # A block that the template writes otherwise in a turn than its prompt begins it.
        ("nemotron_3_nano", "", "<think>\n", "</think>4<|im_end|>"),
        ("nemotron_3_nano", "t", "<think>\n", "t\n</think>\n4<|im_end|>"),
        # A form of its own that the template only has for other turns.
        ("gemma4", "t", "<|turn>model\n", "<|channel>thought\nt\n<channel|>4<turn|>"),
    ],
)
def test_reasoning_has_the_form_of_the_template(name: str, thinking: str, prompt: str, reply: str) -> None:
    tokenizer = with_template(QWEN3, template(name))
    tokenizer.add_special_tokens({"extra_special_tokens": ["<turn|>", "<|turn>", "<channel|>", "<|channel>"]})
    mapper = Mapper(tokenizer, Mapping("auto", "split_turns"))
    (row,) = mapper.conversation(Conversation((ASKED, said("4", thinking=thinking)), 1), 999, "f")
    assert tokenizer.decode([label for label in row.labels if label != IGNORED]) == reply
    assert tokenizer.decode([i for i, label in zip(row.ids, row.labels, strict=True) if label == IGNORED]).endswith(
        prompt
    )


def test_gemma_reads_the_system_text_in_the_first_user_turn() -> None:
    (row,) = rows(GEMMA, ({"role": "system", "content": "Be brief."}, ASKED, said("4")), Mapping("gemma"))
    text = tokenizer_of(GEMMA).decode(row.ids)
    assert text == ("<bos><start_of_turn>user\nBe brief.\n\n2 + 2?<end_of_turn>\n<start_of_turn>model\n4<end_of_turn>")


def test_turns_that_a_template_keeps_share_a_row() -> None:
    """Else a long conversation would cost as much as the square of its length."""
    for name in ("qwen2_5", "qwen3_instruct_2507", "llama3", "phi3", "gemma", "gemma3", "gptoss"):
        assert len(rows(BY_NAME[name], (ASKED, said("It is 4.")) * 5)) == 1, name


def test_an_assistant_that_speaks_first_is_context() -> None:
    (row,) = rows(QWEN3, (said("Hello!"), ASKED, said("4")))
    assert learnt(QWEN3, row) == "<think>\n\n</think>\n\n4<|im_end|>"
    assert "Hello!" in tokenizer_of(QWEN3).decode(row.ids)


@pytest.mark.parametrize("function", ["auto", "qwen", "chatml"])
def test_functions_of_a_family_write_its_template(function: str) -> None:
    messages = (ASKED, said("4", thinking="t"))
    assert rows(QWEN3, messages, Mapping(function)) == rows(QWEN3, messages, Mapping())


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        (lambda: rows(QWEN3, (ASKED, said("4")), Mapping("gemma")), "map_function: gemma does not fit the model"),
        (lambda: rows(GEMMA, (ASKED, said("4")), Mapping("chatml")), "its vocabulary has no <|im_start|>"),
        (lambda: Mapping("auto", "keep"), "valid: auto, split_turns, keep_all, last_only, drop"),
        (
            lambda: load_map_function("qwne"),
            "map_function: 'qwne' is unknown; did you mean qwen? valid: auto, chatml, deepseek, gemma, gpt_oss, qwen",
        ),
        (lambda: Mapper(with_template(QWEN3, None)), "has no chat template"),
        (lambda: Mapper(with_template(QWEN3, template("idefics3"))), "leaves out contents that are plain text"),
        (lambda: Mapper(with_template(QWEN3, template("llama3"))), "cannot write a user's text"),
    ],
)
def test_a_choice_that_does_not_fit_is_one_line(choice: Any, says: str) -> None:
    with pytest.raises(ToolkitError) as error:
        choice()
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_chatml_serves_a_model_without_a_template(tmp_path: Path) -> None:
    base = with_template(QWEN3, None)
    base.eos_token = "<|endoftext|>"
    adopt_template(base, Mapping("chatml"))
    base.save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(tmp_path)
    assert saved.eos_token == "<|im_end|>"
    mapper = Mapper(saved, Mapping(), {saved.eos_token_id})
    (row,) = mapper.conversation(Conversation((ASKED, said("4"), ASKED, said("5")), 1), 999, "f")
    turn = "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    assert saved.decode(row.ids) == f"{turn}4<|im_end|>\n{turn}5<|im_end|>"
    assert saved.decode([label for label in row.labels if label != IGNORED]) == "4<|im_end|>5<|im_end|>"


def test_adopting_changes_no_tokenizer_that_has_its_template() -> None:
    tokenizer = with_template(QWEN3, QWEN3.template)
    for function in ("auto", "qwen", "chatml"):
        adopt_template(tokenizer, Mapping(function))
    assert (tokenizer.chat_template, tokenizer.eos_token) == (QWEN3.template, "<|im_end|>")


def test_the_mapping_of_a_result_is_in_its_train_yaml(tmp_path: Path) -> None:
    assert mapping_of(tmp_path) == mapping_of(tmp_path / "none") == Mapping()
    (tmp_path / "train.yaml").write_text("model_path: m\nmap_function: qwen\nthinking: drop\n")
    assert mapping_of(tmp_path) == Mapping("qwen", "drop")
    (tmp_path / "train.yaml").write_text("{")
    with pytest.raises(ToolkitError, match=r"train\.yaml: cannot be read"):
        mapping_of(tmp_path)


PLUGIN = '''
from ftagent.toolkit.mapping import TemplateFunction

class Shouting(TemplateFunction):
    """Prompts in capitals."""

    def prompt(self, chat, messages):
        return super().prompt(chat, [{**m, "content": m["content"].upper()} for m in messages])

    def reply(self, chat, messages, prompt):
        return messages[-1]["content"] + "<|im_end|>"

class Half:
    def prompt(self, chat, messages):
        return ""
'''
POINTS = """[ftagent.map_functions]
shouting = ftagent_shouting:Shouting
half = ftagent_shouting:Half
absent = ftagent_no_such_module:Any
"""


def test_a_plug_in_is_loaded_by_name_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ftagent_shouting.py").write_text(PLUGIN, encoding="utf-8")
    info = tmp_path / "ftagent_shouting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ftagent-shouting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    assert {"shouting", "qwen"} <= set(map_function_names())
    rows(QWEN3, (ASKED, said("4")))
    assert "ftagent_shouting" not in sys.modules
    (row,) = rows(QWEN3, ({"role": "user", "content": "two?"}, said("four")), Mapping("shouting"))
    monkeypatch.delitem(sys.modules, "ftagent_shouting")
    assert tokenizer_of(QWEN3).decode(row.ids) == (
        "<|im_start|>user\nTWO?<|im_end|>\n<|im_start|>assistant\nfour<|im_end|>"
    )
    assert learnt(QWEN3, row) == "four<|im_end|>"
    with pytest.raises(ToolkitError, match=r"half \(ftagent_shouting:Half\) has no method template, thinks, reply"):
        load_map_function("half")
    with pytest.raises(ToolkitError, match=r"absent \(ftagent_no_such_module:Any\) cannot be loaded: No module"):
        load_map_function("absent")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_pieces_give_the_tokens_of_the_whole(family: Family, data: st.DataObject) -> None:
    piece = st.text(max_size=8) | st.sampled_from([" ", "\n", "\n\n", "a ", " a", "<", *family.special, "<think>"])
    texts = [
        "".join(pieces).encode("utf-8", "replace").decode()
        for pieces in data.draw(st.lists(st.lists(piece, max_size=9), min_size=1, max_size=4))
    ]
    tokenizer = tokenizer_of(family)
    whole = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    tokeniser = Tokeniser(tokenizer)
    assert [tokeniser.encode(texts), tokeniser.encode(texts)] == [whole, whole]


def test_a_tokenizer_that_treats_the_beginning_otherwise_gets_whole_texts() -> None:
    """Metaspace with `first` puts a space before the first piece alone."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE({"▁": 0, "a": 1, "▁a": 2, "b": 3, "\n": 4, "1": 5}, [("▁", "a")]))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    tokenizer.add_tokens([AddedToken("<s>", special=True, normalized=False)], True)
    text = "a<s>a b<s>a"
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert whole[:3] == [2, 6, 1]
    assert Tokeniser(tokenizer).encode([text]) == [whole]


# Where a training variant in trl's package keeps the texts of its template, the parts that it marks as generated are
# what we learn, but for what some mark after the end of a turn. (Qwen 2.5's marks the line end before a reply, too.)
@pytest.mark.parametrize(
    ("name", "thinking", "several"),
    [("qwen3_instruct_2507", "", True), ("llama3", "", True), ("phi3", "", True), ("gemma", "", True),
     ("gemma3", "", True), ("qwen3", "why", False), ("qwen3", "", False),
     ("gptoss", "", True), ("gptoss", "why", False), ("glm4moe", "why", False)],
)  # fmt: skip
def test_labels_are_what_training_templates_mark_as_generated(name: str, thinking: str, several: bool) -> None:
    family = BY_NAME[name]
    tokenizer = tokenizer_of(family)
    turn = (ASKED, said("It is 4.", **({"thinking": thinking} if thinking else {})))
    messages = turn + ((ASKED, said("Four")) if several else ())
    marked = tokenizer.apply_chat_template(
        list(messages), chat_template=template(f"{name}_training"), tokenize=True, return_dict=True,
        return_assistant_tokens_mask=True,
    )  # fmt: skip
    chosen = [token for token, mask in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if mask]
    theirs = str(tokenizer.decode(chosen))
    (row,) = rows(family, messages, Mapping("auto", "split_turns"))
    ours = learnt(family, row)
    for after in ("\n", "<|endoftext|>"):
        theirs = theirs.replace(f"{family.end}{after}", family.end)
    # Harmony's history has the other end of turn; their mask has the reply's header in it.
    theirs = theirs.removeprefix("<|start|>assistant")
    if family.history_end and several:
        theirs = theirs.replace("<|end|><|start|>assistant", "<|return|>")
    assert theirs == ours
