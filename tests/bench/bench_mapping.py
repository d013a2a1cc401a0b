"""The cost of mapping conversations to rows, against rendering and tokenising each whole conversation once.

    python tests/bench/bench_mapping.py MODEL [--conversations 2000] [--rounds 3]

MODEL is a folder with a tokenizer. The chat templates are its own and those of trl's package, whose marks are added to
the tokenizer as special tokens. Plain is `tokenizer.apply_chat_template(messages, tokenize=True)`, which gives neither
prompts nor labels. Rounds are interleaved; the table has medians.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import time
from pathlib import Path
from typing import Any

TEMPLATES = ("own", "qwen3", "qwen3_5_think", "gptoss", "llama3", "gemma3", "deepseek_r1_distill")
WORDS = ["the", "of", "sum", "that", "model", "learns", "from", "each", "answer", "with", "42", "3.14", "such", "is"]
MARKS = re.compile(r"<[|｜][^\s'\"<>]+[|｜]>|<(?:start|end)_of_turn>")


def made_up(number: int, turns: int, thinking: bool) -> list[Any]:
    """Conversations of `turns` questions and answers, of about 40 and 80 words."""
    from ftagent.toolkit.data import Conversation

    generator = random.Random(turns)

    def text(most: int) -> str:
        return " ".join(generator.choices(WORDS, k=generator.randrange(most // 2, most * 3 // 2)))

    rows = []
    for line in range(1, number + 1):
        messages = []
        for _ in range(turns):
            reply = {"role": "assistant", "content": text(80)}
            messages += [{"role": "user", "content": text(40)}, {**reply, "thinking": text(80)} if thinking else reply]
        rows.append(Conversation(tuple(messages), line))
    return rows


def main() -> None:
    from transformers import AutoTokenizer
    from trl import chat_template_utils

    from ftagent.toolkit.mapping import Mapper
    from ftagent_llm.models import resolve_model

    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--conversations", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    files = Path(os.environ.get("FT_FILE_PATH", "ftagent_files")).absolute()
    model = resolve_model(options.model, files).path
    folder = Path(chat_template_utils.__file__).parent / "chat_templates"
    print("| template | turns | thinking | plain (conversations/s) | mapped (conversations/s) | rows | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name in TEMPLATES:
        tokenizer = AutoTokenizer.from_pretrained(model)
        if name != "own":
            tokenizer.chat_template = (folder / f"{name}.jinja").read_text(encoding="utf-8")
            tokenizer.add_tokens(sorted(set(MARKS.findall(tokenizer.chat_template))), special_tokens=True)
        for turns, thinking in ((1, False), (4, False), (4, True)):
            conversations = made_up(options.conversations, turns, thinking)
            plain, mapped, rows = [], [], 0
            for _ in range(options.rounds):
                began = time.perf_counter()
                for conversation in conversations:
                    tokenizer.apply_chat_template(list(conversation.messages), tokenize=True)
                plain.append(time.perf_counter() - began)
                began = time.perf_counter()
                mapper = Mapper(tokenizer, stops={tokenizer.eos_token_id})
                rows = sum(1 for _ in mapper.conversations(conversations, 100_000, "made up"))
                mapped.append(time.perf_counter() - began)
            before, after = statistics.median(plain), statistics.median(mapped)
            print(
                f"| {name} | {turns} | {'yes' if thinking else 'no'} | {len(conversations) / before:.0f} "
                f"| {len(conversations) / after:.0f} | {rows} | {before / after:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
