"""The scenario's own contract: splits differ, answers stay outside, a perfect forecast scores 1."""

import asyncio
import json
from pathlib import Path

import pytest

from ftagent.core.context import ScenarioContext
from ftagent.core.errors import ScoreUnavailable
from ftagent_forecast.options import ForecastOptions
from ftagent_forecast.scenario import ForecastScenario


@pytest.fixture
def scenario(tmp_path: Path) -> ForecastScenario:
    return ForecastScenario(ForecastOptions(items=50), ScenarioContext(files_path=tmp_path))


def questions(scenario: ForecastScenario, split: str) -> list[dict[str, object]]:
    (stage,) = scenario.stages(scenario.baseline(), "predict", split)
    return [json.loads(line) for line in stage.files["questions.jsonl"].splitlines()]


def test_splits_differ_and_hold_no_answers(scenario: ForecastScenario) -> None:
    validation, test = questions(scenario, "validation"), questions(scenario, "test")
    assert validation == questions(scenario, "validation")
    assert all(mine["past"] != theirs["past"] for mine, theirs in zip(validation, test, strict=True))
    assert all(row.keys() == {"id", "past"} for row in validation)


def test_scores(scenario: ForecastScenario, tmp_path: Path) -> None:
    answers = {name: answer for name, _, answer in scenario._items("validation")}
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps({"id": name, "output": answer}) + "\n" for name, answer in answers.items()))
    assert asyncio.run(scenario.score(path, "validation")).value == 1.0
    path.write_text("")
    assert asyncio.run(scenario.score(path, "validation")).value == 0.0
    path.write_text("no JSON")
    with pytest.raises(ScoreUnavailable):
        asyncio.run(scenario.score(path, "validation"))
