"""Each time limit that a user can set reaches the stage that it is for, and which stages may be reused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftagent import parts
from ftagent.core.types import Candidate, Purpose, Stage
from ftagent.request import RunRequest
from ftagent.settings import load

NAME = "rg:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2"
LIMITS = {
    "FT_DEBUG_DATA_PROCESSING_TIMEOUT": ("debug", "prepare_data", 1200),
    "FT_MICRO_BATCH_TIMEOUT": ("debug", "train", 1800),
    "FT_DATA_PROCESSING_TIMEOUT": ("full", "prepare_data", 3600),
    "FT_FULL_TIMEOUT": ("full", "train", 360000),
    "FT_BENCHMARK_TIMEOUT": ("predict", "predict", 0),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 30}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4000))
    return folder


def stages(folder: Path, model: Path, environ: dict[str, str]) -> dict[tuple[Purpose, str], Stage]:
    settings = load(None, {"FT_FILE_PATH": str(folder / "files"), **environ}, folder)
    request = RunRequest(agent="search", base_model=str(model), benchmark=NAME, limit=5)
    scenario = parts.build(parts.merged(request, settings), settings).scenario
    # Files that no template rendered are rehearsed.
    candidate = Candidate(0, {**scenario.brief().render({}), "prepare_data.py": "print(1)\n"}, {})
    purposes: tuple[Purpose, ...] = ("debug", "full", "predict")
    return {
        (purpose, stage.name): stage
        for purpose in purposes
        for stage in scenario.stages(candidate, purpose, "validation" if purpose == "predict" else None)
    }


def test_every_time_limit_reaches_its_stage_and_no_other(tmp_path: Path, model: Path) -> None:
    default = stages(tmp_path, model, {})
    assert {place: stage.time_limit for place, stage in default.items()} == {
        (purpose, name): seconds for purpose, name, seconds in LIMITS.values()
    }
    for variable, (purpose, name, _) in LIMITS.items():
        changed = stages(tmp_path, model, {variable: "77.5"})
        different = {place for place, stage in changed.items() if stage.time_limit != default[place].time_limit}
        assert different == {(purpose, name)}, variable
        assert changed[purpose, name].time_limit == 77.5  # type: ignore[index]


def test_what_scores_is_never_taken_from_the_cache(tmp_path: Path, model: Path) -> None:
    reusable = {place for place, stage in stages(tmp_path, model, {}).items() if stage.reusable}
    assert reusable == {("debug", "prepare_data"), ("debug", "train"), ("full", "prepare_data")}
