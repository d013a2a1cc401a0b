"""The toolkit's generation against lm-eval's HF model: same prompts, greedy, float32, same end, same most new tokens.

    python tests/bench/bench_predict.py MODEL [--items 200] [--new 256] [--rounds 3] [--variants own,lm-eval-32]

MODEL is a folder or an alias such as smollm2-135m; FTAGENT_DATA_MIRROR names the folder that has gsm8k/test.jsonl.
`lm-eval-N` is HFLM.generate_until with batch_size N; 1 is its default. Needs the extra `lm-eval`.

Every variant of a round has a process of its own, so that its peak memory is its own; rounds are interleaved. Time is
that of tokenising, generating and decoding, without imports and loading. Prints a table on stderr and one JSON
document on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def questions(items: int) -> list[str]:
    folder = Path(os.environ["FTAGENT_DATA_MIRROR"]) / "gsm8k" / "test.jsonl"
    return [json.loads(line)["question"] for line in folder.read_text(encoding="utf-8").splitlines()[:items]]


def own(options: argparse.Namespace) -> dict[str, Any]:
    """What `python -m ftagent.toolkit.predict` does between loading and writing."""
    from ftagent.toolkit.config import PredictConfig, validate_config
    from ftagent.toolkit.data import Question
    from ftagent.toolkit.generate import Draft, generate
    from ftagent.toolkit.kernels.select import speed_up
    from ftagent.toolkit.mapping import encode_question
    from ftagent.toolkit.models import load_model
    from ftagent.toolkit.tokens import stop_tokens

    values = {"model": options.model, "questions": "-", "output": "-", "max_new_tokens": options.new}
    config = validate_config(values, PredictConfig, "bench")
    model, tokenizer = load_model(options.model, "float32", "cpu")
    texts: dict[str, str] = {}
    tokens = 0

    def finished(ended: list[Draft]) -> None:
        nonlocal tokens
        for draft in ended:
            texts[draft.id] = tokenizer.decode(draft.new, skip_special_tokens=True)
            tokens += len(draft.new)

    wall, cpu = time.perf_counter(), time.process_time()
    speed_up(model)
    drafts = []
    for number, text in enumerate(questions(options.items)):
        asked = Question(str(number), ({"role": "user", "content": text},), number)
        drafts.append(Draft(asked.id, 0, encode_question(tokenizer, asked, "bench")))
    generate(model, drafts, stop_tokens(tokenizer, model), config, finished)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    answers = [texts[draft.id] for draft in drafts]
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "answers": answers, "tokens": tokens}


def lm_eval(options: argparse.Namespace) -> dict[str, Any]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    size = int(options.worker.removeprefix("lm-eval-"))
    model = HFLM(pretrained=options.model, device="cpu", dtype="float32", batch_size=size)
    prompts = [
        model.apply_chat_template([{"role": "user", "content": text}]) for text in questions(options.items)
    ]  # fmt: skip
    settings = {"until": [model.tokenizer.eos_token], "max_gen_toks": options.new, "do_sample": False}
    requests = [Instance("generate_until", {}, (prompt, settings), number) for number, prompt in enumerate(prompts)]
    wall, cpu = time.perf_counter(), time.process_time()
    answers = model.generate_until(requests, disable_tqdm=True)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "answers": answers}


def measure(options: argparse.Namespace, variant: str) -> dict[str, Any]:
    command = [sys.executable, __file__, options.model, "--worker", variant]
    command += ["--items", str(options.items), "--new", str(options.new)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{variant}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    sys.stderr.write(
        f"{variant:12} {options.items / result['seconds']:7.2f} items/s  {result['cpu_seconds']:7.1f} CPU s  "
        f"{result['peak_mib']:6.0f} MiB\n"
    )
    return result


def summary(found: dict[str, list[dict[str, Any]]], items: int) -> dict[str, Any]:
    """Medians over rounds; ratios are those of runs of the same round."""
    result: dict[str, Any] = {}
    for variant, runs in found.items():
        entry: dict[str, Any] = {
            "items_per_second": round(statistics.median(items / run["seconds"] for run in runs), 3),
            "cpu_seconds": round(statistics.median(run["cpu_seconds"] for run in runs), 1),
            "peak_mib": round(statistics.median(run["peak_mib"] for run in runs)),
        }
        if variant != "own" and "own" in found:
            pairs = list(zip(found["own"], runs, strict=True))
            entry["own_is_times_faster"] = round(statistics.median(b["seconds"] / a["seconds"] for a, b in pairs), 2)
            entry["own_in_cpu_time"] = round(
                statistics.median(b["cpu_seconds"] / a["cpu_seconds"] for a, b in pairs), 2
            )
            same = sum(
                a.strip() == b.strip() for a, b in zip(found["own"][0]["answers"], runs[0]["answers"], strict=True)
            )
            entry["equal_answers"] = round(same / items, 4)
        result[variant] = entry
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variants", default="own,lm-eval-1,lm-eval-16,lm-eval-32,lm-eval-64,lm-eval-128")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.worker:
        result = own(options) if options.worker == "own" else lm_eval(options)
        result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stdout.write("\n" + json.dumps(result) + "\n")
        return
    from ftagent_llm.models import resolve_model

    options.model = str(
        resolve_model(options.model, Path(os.environ.get("FT_FILE_PATH", "ftagent_files")).absolute()).path
    )
    variants = options.variants.split(",")
    found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    for _ in range(options.rounds):
        for variant in variants:
            found[variant].append(measure(options, variant))
    document = {
        "model": options.model,
        "items": options.items,
        "most_new_tokens": options.new,
        "rounds": options.rounds,
    }
    sys.stdout.write(json.dumps({**document, "variants": summary(found, options.items)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
