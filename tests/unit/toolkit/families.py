"""Model families for tests: their published chat templates, tokenizers made on the spot, and their formats by hand.

The templates come from trl's package. A tokenizer has its family's special tokens, kind of pre-tokenisation and
normalisation, and a small vocabulary learnt from a few lines; ids differ from the real ones, cuts are as theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TEXTS = [
    "The assistant says: hello, user! What is 12 + 34? It is 46.\n\nAnd then\nanother line. <think> </think>",
    "system prompt: you are a helpful assistant\n def f(x):\n    return x * 2\n\n\n# comment  ",
    "é漢字🙂 ünïcode – “quotes” 'single' don't can't\ttabs\r\n",
] * 3
GPT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3, Qwen and gpt-oss cut texts into words (numbers differ a little)."""


@dataclass(frozen=True)
class Family:
    """`reply(thinking, content)` and `silent(content)` are what the model generates with and without reasoning.

    `between(user)` is what stands between the end of a turn and the next reply, without any empty think block.
    `history_end` is set where an earlier turn ends with another token than the one that ends generation.
    """

    name: str
    kind: str
    special: tuple[str, ...]
    bos: str | None
    end: str
    reply: Callable[[str, str], str]
    silent: Callable[[str], str]
    between: Callable[[str], str]
    takes_thinking: bool = False
    switch: bool = False
    takes_system: bool = True
    history_end: str | None = None
    more_stops: tuple[str, ...] = ()
    eos: str | None = None
    """The tokenizer's, where it is not `end`."""

    @property
    def template(self) -> str:
        return template(self.name)


def template(name: str) -> str:
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def inline(thinking: str, content: str) -> str:
    return f"<think>\n{thinking.strip(chr(10))}\n</think>\n\n{content}" if thinking else content


CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
GEMMA = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
HARMONY = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>", "<|endoftext|>")


def chatml(name: str, reply: Any, silent: Any, **rest: Any) -> Family:
    return Family(
        name, "gpt", CHATML, None, "<|im_end|>",
        lambda thinking, content: reply(thinking, content) + "<|im_end|>",
        lambda content: silent(content) + "<|im_end|>",
        rest.pop("between", lambda user: f"\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"),
        more_stops=("<|endoftext|>",), **rest,
    )  # fmt: skip


def deepseek(name: str) -> Family:
    return Family(
        name, "gpt", DEEPSEEK, DEEPSEEK[0], DEEPSEEK[1],
        lambda thinking, content: f"{thinking.strip(chr(10))}\n</think>\n\n{content}{DEEPSEEK[1]}",
        lambda content: f"\n</think>\n\n{content}{DEEPSEEK[1]}",
        lambda user: f"<｜User｜>{user}<｜Assistant｜><think>\n",
    )  # fmt: skip


def gemma(name: str, takes_system: bool) -> Family:
    return Family(
        name, "gemma", GEMMA, "<bos>", "<end_of_turn>",
        lambda thinking, content: inline(thinking, content.strip()) + "<end_of_turn>",
        lambda content: content.strip() + "<end_of_turn>",
        lambda user: f"\n<start_of_turn>user\n{user.strip()}<end_of_turn>\n<start_of_turn>model\n",
        takes_system=takes_system, more_stops=("<eos>",), eos="<eos>",
    )  # fmt: skip


FAMILIES = (
    chatml("qwen2_5", inline, lambda content: content),
    chatml("qwen3_instruct_2507", inline, lambda content: content),
    chatml(
        "qwen3",
        lambda thinking, content: f"<think>\n{thinking.strip(chr(10))}\n</think>\n\n{content.lstrip(chr(10))}",
        lambda content: content.lstrip("\n"),
        takes_thinking=True, switch=True,
    ),
    chatml(
        "qwen3_5_think",
        lambda thinking, content: f"{thinking.strip()}\n</think>\n\n{content.strip()}",
        lambda content: content.strip(),
        takes_thinking=True, switch=True,
        between=lambda user: f"\n<|im_start|>user\n{user.strip()}<|im_end|>\n<|im_start|>assistant\n<think>\n",
    ),
    Family(
        "gptoss", "gpt", HARMONY, None, "<|return|>",
        lambda thinking, content: (
            (f"<|channel|>analysis<|message|>{thinking}<|end|><|start|>assistant" if thinking else "")
            + f"<|channel|>final<|message|>{content}<|return|>"
        ),
        lambda content: f"<|channel|>final<|message|>{content}<|return|>",
        lambda user: f"<|start|>user<|message|>{user}<|end|><|start|>assistant",
        takes_thinking=True, history_end="<|end|>", more_stops=("<|call|>", "<|endoftext|>"),
    ),
    deepseek("deepseek_r1_distill"),
    deepseek("deepseekv3"),
    gemma("gemma", takes_system=False),
    gemma("gemma3", takes_system=True),
    Family(
        "llama3", "gpt",
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>", "<|eot_id|>",
        lambda thinking, content: inline(thinking, content.strip()) + "<|eot_id|>",
        lambda content: content.strip() + "<|eot_id|>",
        lambda user: (
            f"<|start_header_id|>user<|end_header_id|>\n\n{user.strip()}<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        ),
        more_stops=("<|end_of_text|>",),
    ),
    Family(
        "phi3", "llama2", ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"), None, "<|end|>",
        lambda thinking, content: inline(thinking, content) + "<|end|>",
        lambda content: f"{content}<|end|>",
        lambda user: f"\n<|user|>\n{user}<|end|>\n<|assistant|>\n",
        more_stops=("<|endoftext|>", "<|assistant|>"), eos="<|endoftext|>",
    ),
    Family(
        "glm4moe", "gpt",
        ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "<|endoftext|>"),
        None, "<|user|>",
        lambda thinking, content: (
            f"\n<think>{thinking.strip()}</think>" + (f"\n{content.strip()}" if content.strip() else "") + "<|user|>"
        ),
        lambda content: (f"\n{content.strip()}" if content.strip() else "") + "<|user|>",
        lambda user: f"\n{user}<|assistant|>",
        takes_thinking=True, switch=True, more_stops=("<|endoftext|>",), eos="<|endoftext|>",
    ),
)  # fmt: skip


@cache
def tokenizer_of(family: Family) -> Any:
    """A tokenizer with the family's template. <think> is an added token that is not special, as in Qwen's."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(byte_fallback=family.kind != "gpt"))
    alphabet: list[str] = []
    if family.kind == "gpt":
        split = pre_tokenizers.Split(Regex(GPT), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        spaces = normalizers.Replace(" ", "▁")
        first = [normalizers.Prepend("▁")] if family.kind == "llama2" else []
        tokenizer.normalizer = normalizers.Sequence([*first, spaces])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)] if family.kind != "gpt" else []
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, special_tokens=bytes_, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=_without_special_bytes(tokenizer))
    rstrip = family.kind == "llama2"
    made.add_tokens([AddedToken(text, special=True, normalized=False, rstrip=rstrip) for text in family.special], True)
    made.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>")])
    made.bos_token, made.eos_token = family.bos, family.eos or family.end
    made.chat_template = family.template
    return made


def _without_special_bytes(tokenizer: Any) -> Any:
    """Bytes are ordinary entries of a vocabulary; the trainer can only be given them as special tokens."""
    import json

    from tokenizers import Tokenizer

    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(state))


def stops_of(family: Family) -> set[int]:
    return set(tokenizer_of(family).convert_tokens_to_ids([family.end, *family.more_stops]))
