"""The toolkit's training loop against TRL's SFTTrainer: same model, adapter, rows, batch and number of steps.

    python tests/bench/bench_toolkit.py MODEL [--steps 8] [--rounds 3]

MODEL is a folder or an alias such as smollm2-135m.

The rows are short sums under a chat template, the case that `make demo` trains on. Rounds are interleaved. Time is
that of the optimiser's loop, without imports and loading; TRL runs without gradient checkpointing and with the
loss on completions alone, its fastest setting for this. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RANK, ALPHA, LAYERS, BATCH, RATE = 16, 32, 12, 8, 1.5e-3


def prompts(number: int) -> list[tuple[str, str]]:
    generator = random.Random(0)
    sums = [(generator.randrange(100), generator.randrange(100)) for _ in range(number)]
    start = "Answer the question. Give only the final number.\n\nState the final answer to the following problem: "
    return [(f"{start}{first} + {second} =", str(first + second)) for first, second in sums]


def timed(action: Any) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def own(model_path: str, rows: list[tuple[str, str]], folder: Path) -> dict[str, float]:
    import torch

    from ftagent.toolkit.checkpoint import Progress
    from ftagent.toolkit.config import TrainConfig
    from ftagent.toolkit.data import Conversation
    from ftagent.toolkit.loop import Training, optimise
    from ftagent.toolkit.mapping import Mapper
    from ftagent.toolkit.models import add_adapter, load_model
    from ftagent.toolkit.objectives.sft import SupervisedObjective
    from ftagent.toolkit.tokens import stop_tokens

    config = TrainConfig(
        model_path=model_path, dataset_path=folder, save_model_path=folder, epochs=1,
        rank=RANK, alpha=ALPHA, layers=LAYERS, batch_size=BATCH, learning_rate=RATE, dtype="float32", device="cpu",
    )  # fmt: skip
    model, tokenizer = load_model(model_path, "float32", "cpu")
    mapper = Mapper(tokenizer, stops=stop_tokens(tokenizer, model))
    conversations = [
        Conversation(({"role": "user", "content": asked}, {"role": "assistant", "content": answer}), 1)
        for asked, answer in rows
    ]
    encoded = list(mapper.conversations(conversations, config.max_length, "rows"))
    inner = add_adapter(model, config).get_base_model().train()
    optimizer = torch.optim.AdamW((p for p in inner.parameters() if p.requires_grad), lr=RATE, fused=True)
    steps = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
    objective = SupervisedObjective(config.pack_tokens)
    training = Training(inner, optimizer, objective, steps, config, "", lambda record: None)
    progress = Progress()
    result = timed(lambda: optimise(training, progress))
    return {**result, "tokens": progress.tokens}


def trl(model_path: str, rows: list[tuple[str, str]], folder: Path) -> dict[str, float]:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from ftagent.toolkit.models import load_model

    model, tokenizer = load_model(model_path, "float32", "cpu")
    count = model.config.num_hidden_layers
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    dataset = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": asked}],
                "completion": [{"role": "assistant", "content": answer}],
            }
            for asked, answer in rows
        ]
    )
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=dataset,
        args=SFTConfig(
            output_dir=str(folder), per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=RATE,
            gradient_checkpointing=False, completion_only_loss=True, save_strategy="no", report_to=[], use_cpu=True,
            bf16=False, logging_steps=1, disable_tqdm=True,
        ),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules=modules, task_type="CAUSAL_LM",
            layers_to_transform=list(range(count - LAYERS, count)), layers_pattern="layers",
        ),
    )  # fmt: skip
    result = timed(trainer.train)
    return {**result, "tokens": float(trainer.state.num_input_tokens_seen or 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ftagent_llm.models import resolve_model

    files = Path(os.environ.get("FT_FILE_PATH", "ftagent_files")).absolute()
    model = str(resolve_model(options.model, files).path)
    rows = prompts(options.steps * BATCH)
    found: dict[str, list[dict[str, float]]] = {"own": [], "trl": []}
    for _ in range(options.rounds):
        for name, action in (("own", own), ("trl", trl)):
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(action(model, rows, Path(folder)))
    tokens = found["own"][0]["tokens"]
    result: dict[str, Any] = {"steps": options.steps, "batch": BATCH, "tokens": tokens}
    for unit in ("seconds", "cpu_seconds"):
        ratios = [b[unit] / a[unit] for a, b in zip(found["own"], found["trl"], strict=True)]
        result[unit] = {name: round(statistics.median(r[unit] for r in runs), 2) for name, runs in found.items()}
        result[unit]["ratio"] = round(statistics.median(ratios), 2)
    result["tokens_per_second"] = {name: round(tokens / result["seconds"][name], 1) for name in found}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
