"""What AGENT_SETTINGS become: objectives, constraints, questions."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftagent.core.errors import RequestError
from ftagent.core.search_plan import Constraint, Objective, SearchPlan
from ftagent_hpo.config import packaged_text, read_config


def plan(**options: str) -> SearchPlan:
    return read_config(packaged_text(), "hpo.yaml", options).settings.plan()


@pytest.mark.parametrize(
    ("given", "objectives"),
    [
        ("seconds", (Objective("seconds"),)),
        ("seconds, model_mb", (Objective("seconds"), Objective("model_mb"))),
        ("{recall: maximize}", (Objective("recall", "maximize"),)),
        ("[seconds, {recall: maximize}]", (Objective("seconds"), Objective("recall", "maximize"))),
        ("[{name: recall, direction: maximize}]", (Objective("recall", "maximize"),)),
    ],
)
def test_objectives_are_names_with_directions(given: str, objectives: tuple[Objective, ...]) -> None:
    assert plan(objectives=given).objectives == objectives


def test_constraints_are_names_with_bounds() -> None:
    found = plan(constraints="{seconds: 120, peak_mb: 4000.5}")
    assert found.constraints == (Constraint("seconds", 120.0), Constraint("peak_mb", 4000.5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"constraints": "{seconds: long}"}, "AGENT_SETTINGS.CONSTRAINTS: input should be a valid number"),
        ({"constraints": "seconds"}, "CONSTRAINTS: must be a mapping such as seconds: 60"),
        ({"confirm_seeds": "-3"}, "AGENT_SETTINGS.CONFIRM_SEEDS: input should be greater than or equal to 0 (not -3)"),
        ({"objectives": "{seconds: up}"}, "AGENT_SETTINGS.OBJECTIVES: input should be 'maximize' or 'minimize'"),
    ],
)
def test_a_wrong_one_is_one_line(tmp_path: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(RequestError) as error:
        plan(**options)
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("written", "asks"), [("true", True), ("auto", True), ("false", False)])
def test_interactive_mode_is_the_plans_default(written: str, asks: bool) -> None:
    assert plan(INTERACTIVE_MODE=written).interactive is asks
