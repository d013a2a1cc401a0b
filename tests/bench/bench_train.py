"""The toolkit's training against TRL's SFTTrainer and a bare transformers Trainer.

    python tests/bench/bench_train.py MODEL [--cases gsm8k,chats] [--rows 48] [--rounds 3] [--variants own,trl]

MODEL is a folder or an alias such as smollm2-135m; FTAGENT_DATA_MIRROR names the folder that has gsm8k/train.jsonl.

Every variant of a round has a process of its own, so that its peak memory is its own; rounds are interleaved. All see
the same tokens and labels in the same order (but for packing and grouping, which choose their own), in float32, with
the same LoRA: rank 16 on all linear modules of the last 12 layers. Time is that of the training loop, without
imports, loading and tokenisation. Rates count real tokens, padding apart.

Cases: `gsm8k` (problem and solution), `chats` (two to five GSM8K problems as the turns of one conversation), `short`
(two-term sums), `single` (gsm8k, one row a step), `full` (gsm8k, all weights trained).

Prints a table on stderr and one JSON document on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RANK, ALPHA, LAYERS, RATE, SEED, MAX_LENGTH = 16, 32, 12, 1e-3, 0, 1024
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = ("gsm8k", "chats", "short", "single", "full")
VARIANTS = {
    "own": "ftagent train",
    "trl": "TRL, its defaults",
    "trl-plain": "TRL, no gradient checkpointing",
    "trl-grouped": "TRL, no gradient checkpointing, grouped by length",
    "trl-packed": "TRL, no gradient checkpointing, packed",
    "bare": "transformers Trainer",
    "bare-grouped": "transformers Trainer, grouped by length",
}
TRL_OPTIONS: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl-plain": {"gradient_checkpointing": False},
    "trl-grouped": {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"},
    "trl-packed": {"gradient_checkpointing": False, "packing": True, "max_length": MAX_LENGTH},
}


def conversations(case: str, rows: int) -> list[list[dict[str, str]]]:
    """`rows` conversations of `case` as messages."""
    generator = random.Random(SEED)
    if case == "short":
        pairs = [(generator.randrange(100), generator.randrange(100)) for _ in range(rows)]
        start = "Answer the question. Give only the final number.\n\nState the final answer to the following problem: "
        return [turn(f"{start}{first} + {second} =", str(first + second)) for first, second in pairs]
    folder = Path(os.environ["FTAGENT_DATA_MIRROR"]) / "gsm8k" / "train.jsonl"
    problems = [json.loads(line) for line in folder.read_text(encoding="utf-8").splitlines()]
    found = []
    for _ in range(rows):
        turns = generator.randint(2, 5) if case == "chats" else 1
        taken, problems = problems[:turns], problems[turns:]
        found.append([message for item in taken for message in turn(item["question"], item["answer"])])
    return found


def turn(asked: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def batch_size(case: str) -> int:
    return 1 if case == "single" else 8


def config(case: str, model_path: str, data: Path, folder: Path) -> Any:
    from ftagent.toolkit.config import TrainConfig, validate_config

    values = {
        "model_path": model_path, "dataset_path": str(data), "save_model_path": str(folder / "out"), "epochs": 1,
        "method": "full" if case == "full" else "lora", "rank": RANK, "alpha": ALPHA, "layers": LAYERS,
        "batch_size": batch_size(case), "learning_rate": rate(case), "schedule": "linear", "warmup_ratio": 0.0,
        "max_length": MAX_LENGTH, "dtype": "float32", "device": "cpu", "seed": SEED, "log_steps": 1,
    }  # fmt: skip
    return validate_config(values, TrainConfig, "bench")


def own(case: str, model_path: str, data: Path, folder: Path) -> dict[str, Any]:
    """`ftagent train` as it is."""
    from ftagent.toolkit.train import train

    records: list[dict[str, Any]] = []
    started = time.process_time()
    marks: list[float] = []

    def emit(record: dict[str, Any]) -> None:
        marks.append(time.process_time())
        records.append(record)

    train(config(case, model_path, data, folder), emit)
    steps = [number for number, record in enumerate(records) if "loss" in record]
    begun = marks[steps[0] - 1] if steps[0] else started
    last = records[steps[-1]]
    return {
        "seconds": last["seconds"], "cpu_seconds": marks[steps[-1]] - begun, "tokens": last["tokens"],
        "losses": [records[number]["loss"] for number in steps],
    }  # fmt: skip


def rate(case: str) -> float:
    return 1e-5 if case == "full" else RATE


def encoded(case: str, model_path: str, data: Path, folder: Path) -> tuple[Any, Any, list[dict[str, list[int]]]]:
    """(model, tokenizer, rows of ids and labels in the order in which the toolkit sees them)."""
    from ftagent.toolkit.models import load_model
    from ftagent.toolkit.objectives.build import prepare_objective, read_rows

    model, tokenizer = load_model(model_path, "float32", "cpu")
    settings = config(case, model_path, data, folder)
    batches = prepare_objective(model, tokenizer, settings, read_rows(settings)).batches
    rows = [{"input_ids": list(row.ids), "labels": list(row.labels)} for batch in batches for row in batch]
    return model, tokenizer, rows


def arguments(case: str, folder: Path, **more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "output_dir": str(folder), "per_device_train_batch_size": batch_size(case), "num_train_epochs": 1,
        "learning_rate": rate(case), "save_strategy": "no", "report_to": [], "use_cpu": True, "bf16": False,
        "logging_steps": 1, "disable_tqdm": True, "seed": SEED, "train_sampling_strategy": "sequential",
    }  # fmt: skip
    return {**values, **more}


def adapter(model: Any) -> Any:
    from peft import LoraConfig

    count = model.config.num_hidden_layers
    return LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=MODULES, task_type="CAUSAL_LM",
        layers_to_transform=list(range(count - LAYERS, count)), layers_pattern="layers",
    )  # fmt: skip


def trl(case: str, model_path: str, data: Path, folder: Path, variant: str) -> dict[str, Any]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer, rows = encoded(case, model_path, data, folder)
    model.train()
    options = dict(TRL_OPTIONS[variant])
    if options.get("packing"):
        # As many rows a step as the others have, in packs that are never longer than a row may be.
        mean = sum(len(row["input_ids"]) for row in rows) / len(rows)
        options["per_device_train_batch_size"] = max(1, round(batch_size(case) * mean / MAX_LENGTH))
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        args=SFTConfig(**arguments(case, folder, **options)),
        peft_config=None if case == "full" else adapter(model),
    )
    return timed(trainer, rows)


def bare(case: str, model_path: str, data: Path, folder: Path, variant: str) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model, tokenizer, rows = encoded(case, model_path, data, folder)
    options = {"train_sampling_strategy": "group_by_length"} if variant == "bare-grouped" else {}
    # Adapters begin as the others' do.
    torch.manual_seed(SEED)
    trainer = Trainer(
        model=model.train() if case == "full" else get_peft_model(model, adapter(model)).train(),
        args=TrainingArguments(**arguments(case, folder, **options)),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    return timed(trainer, rows)


def timed(trainer: Any, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    tokens = sum(len(row["input_ids"]) for row in rows)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "tokens": tokens, "losses": losses}


def work(options: argparse.Namespace) -> None:
    """One variant in this process; its result is the last line of stdout."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data.jsonl"
        chats = conversations(options.cases, options.rows)
        data.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats), encoding="utf-8")
        common = (options.cases, options.model, data, folder)
        if options.worker == "own":
            result = own(*common)
        else:
            action = trl if options.worker.startswith("trl") else bare
            result = action(*common, options.worker)
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write("\n" + json.dumps(result) + "\n")


def measure(options: argparse.Namespace, case: str, variant: str) -> dict[str, Any]:
    command = [
        sys.executable,
        __file__,
        options.model,
        "--worker",
        variant,
        "--cases",
        case,
        "--rows",
        str(options.rows),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{case}, {variant}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    sys.stderr.write(
        f"{case:8} {variant:13} {result['tokens'] / result['seconds']:7.0f} tokens/s  "
        f"{result['cpu_seconds']:6.1f} CPU s  {result['peak_mib']:6.0f} MiB\n"
    )
    return result


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over rounds; ratios are those of runs of the same round. `loss_difference`: of steps, mean absolute."""
    result: dict[str, Any] = {}
    for variant, runs in found.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in ("seconds", "cpu_seconds", "peak_mib")}
        entry: dict[str, Any] = {
            "tokens": runs[0]["tokens"],
            "tokens_per_second": round(statistics.median(run["tokens"] / run["seconds"] for run in runs), 1),
            **{key: round(value, 2) for key, value in middle.items()},
            "last_losses": [round(loss, 4) for loss in runs[0]["losses"][-3:]],
        }
        if variant != "own" and "own" in found:
            pairs = list(zip(found["own"], runs, strict=True))
            entry["own_is_times_faster"] = round(statistics.median(b["seconds"] / a["seconds"] for a, b in pairs), 2)
            entry["own_in_cpu_time"] = round(
                statistics.median(b["cpu_seconds"] / a["cpu_seconds"] for a, b in pairs), 2
            )
            ours, theirs = found["own"][0]["losses"], runs[0]["losses"]
            if len(ours) == len(theirs):
                differences = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
                entry["loss_difference"] = round(statistics.mean(differences), 5)
        result[variant] = entry
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--cases", default="gsm8k,chats,short,single,full")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if options.worker:
        work(options)
        return
    from ftagent_llm.models import resolve_model

    options.model = str(
        resolve_model(options.model, Path(os.environ.get("FT_FILE_PATH", "ftagent_files")).absolute()).path
    )
    variants = options.variants.split(",")
    document: dict[str, Any] = {"model": options.model, "rows": options.rows, "rounds": options.rounds, "cases": {}}
    for case in options.cases.split(","):
        found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
        for _ in range(options.rounds):
            for variant in variants:
                found[variant].append(measure(options, case, variant))
        document["cases"][case] = summary(found)
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
