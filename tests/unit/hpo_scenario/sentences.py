"""A sentence model and pairs of sentences so small that a training is all imports."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from random import Random

WORDS = [f"{first}{second}" for first in ("ba", "du", "ki", "lo", "me") for second in ("ra", "ti", "so", "nu", "pe")]


def write_model(folder: Path) -> Path:
    """Two layers with random weights, as a plain transformer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=64)  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def write_pairs(folder: Path, count: int = 60) -> Path:
    """train.csv, dev.csv and test.csv; the score (0 to 5) is how many words a pair shares."""
    folder.mkdir(exist_ok=True)
    for name, number in (("train", count), ("dev", 24), ("test", 20)):
        random = Random(name)
        with (folder / f"{name}.csv").open("w", newline="") as out:
            rows = csv.writer(out)
            rows.writerow(["sentence1", "sentence2", "score"])
            for _ in range(number):
                one = random.sample(WORDS, 5)
                kept = random.randint(0, 5)
                others = [word for word in WORDS if word not in one]
                rows.writerow([" ".join(one), " ".join([*one[:kept], *random.sample(others, 5 - kept)]), float(kept)])
    return folder


def write_shape(folder: Path) -> Path:
    """What resolves as a model and cannot be computed with."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 4}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(400))
    return folder
