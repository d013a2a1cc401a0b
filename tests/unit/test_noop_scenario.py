"""The no-op scenario: cheap, seeded, and shaped so that a search can climb."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import ScoreUnavailable
from ftagent.core.types import Candidate, Score, Split
from ftagent_noop.options import NoopOptions
from ftagent_noop.scenario import NoopScenario, render


def scenario(tmp_path: Path, **options: object) -> NoopScenario:
    return NoopScenario(NoopOptions(**options), ScenarioContext(files_path=tmp_path))


def score(scene: NoopScenario, folder: Path, params: dict[str, object] | None, split: Split) -> Score:
    folder.mkdir(exist_ok=True)
    if params is not None:
        for name, text in render(params).items():
            (folder / name).write_text(text)
    return asyncio.run(scene.score(folder, split))


def test_same_parameters_give_the_same_outcomes_and_better_ones_more(tmp_path: Path) -> None:
    scene = scenario(tmp_path, items=400)
    base = score(scene, tmp_path / "none", None, "validation")
    good = score(scene, tmp_path / "good", {"x": 0.7, "mode": "better"}, "validation")
    again = score(scene, tmp_path / "again", {"x": 0.7, "mode": "better"}, "validation")
    assert good.outcomes == again.outcomes
    assert good.ci95[0] > base.ci95[1]
    assert set(good.outcomes).isdisjoint(score(scene, tmp_path / "good", None, "test").outcomes)


def test_wrong_parameters_have_no_score(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text(json.dumps({"x": 2.0, "mode": "plain"}))
    with pytest.raises(ScoreUnavailable, match="0 to 1"):
        asyncio.run(scenario(tmp_path).score(tmp_path, "validation"))


def test_unknown_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="extra"):
        NoopOptions(itmes=3)  # type: ignore[call-arg]


def test_score_costs_under_half_a_millisecond(tmp_path: Path) -> None:
    scene = scenario(tmp_path)
    for name, text in render({}).items():
        (tmp_path / name).write_text(text)

    async def many() -> float:
        started = time.process_time()
        for _ in range(200):
            await scene.score(tmp_path, "validation")
        return (time.process_time() - started) / 200

    assert asyncio.run(many()) < 0.0005


def test_the_optional_stage_runs(tmp_path: Path) -> None:
    scene = scenario(tmp_path, stages=1)
    candidate = Candidate(0, render({"x": 0.5}))
    (stage,) = scene.stages(candidate, "full")
    for name, text in {**candidate.files, **stage.files}.items():
        (tmp_path / name).write_text(text)
    subprocess.run([sys.executable, *stage.command[1:]], cwd=tmp_path, check=True, timeout=60)
    assert all((tmp_path / name).exists() for name in stage.outputs)
    assert scene.stages(candidate, "debug") == []
    assert scene.stages(scene.baseline(), "full") == []
