"""How long prompts get: tokens per step when a run has 1, 10, 50 and 200 loops behind it.

    python tests/bench/bench_prompts.py [MODEL]

Counted as LiteLLM counts for MODEL (gpt-4o without one), form of the answer included, over made-up histories of the
llm scenario. `small` is a model with a context of 8192 tokens, of which a prompt may take half.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

LOOPS = (0, 1, 10, 50, 200)
ROLES = ("propose", "code", "repair", "reflect")


def main(model: str) -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from ftagent.llm.litellm_backend import LiteLLMBackend
    from support.asked import requests
    from support.tiny_scenario import tiny_scenario

    count = LiteLLMBackend().count_tokens
    with tempfile.TemporaryDirectory() as folder:
        brief = tiny_scenario(Path(folder)).brief()
        print(f"{'context':>8} {'loops':>6} " + " ".join(f"{role:>8}" for role in ROLES) + f" {'CPU ms':>8}")
        for context in (128_000, 8192):
            for loops in LOOPS:
                began = time.process_time()
                texts = requests(brief, loops, context)
                spent = 1000 * (time.process_time() - began) / len(ROLES)
                tokens = " ".join(f"{count(model, texts[role]):>8}" for role in ROLES)
                print(f"{context:>8} {loops:>6} {tokens} {spent:>8.1f}")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["gpt-4o"]))
