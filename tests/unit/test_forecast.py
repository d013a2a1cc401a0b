"""The forecast of a run: from prompts, from past loops, per loop, under a cap, and with a price that is unknown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ftagent.core import events
from ftagent.core.journal import Journal
from ftagent.core.run_folder import RunFolder
from ftagent.core.statistics import score_of
from ftagent.core.types import Feedback, Hypothesis
from ftagent.forecast import LoopUse, Plan, forecast, past_loops
from ftagent.llm.types import Price

ROLES = ("propose", "code", "repair", "reflect")
PRICE = Price(1e-6, 10e-6)
PLAN = Plan(
    scenario="llm",
    models=dict.fromkeys(ROLES, "gpt-x"),
    prices={"gpt-x": PRICE},
    prompt_tokens={"propose": 1000, "code": 2000, "repair": 3000, "reflect": 1000},
    repairs=4,
    loops=10,
)


def test_without_a_past_the_prompts_and_the_repairs_decide() -> None:
    result = forecast(PLAN)
    assert (result.calls.low, result.calls.high) == (30, 70)
    assert (result.prompt_tokens.low, result.prompt_tokens.high) == (40_000, 3 * 10 * (4000 + 4 * 3000))
    assert (result.completion_tokens.low, result.completion_tokens.high) == (6500, 10 * (11_500 + 4 * 8000))
    assert result.usd is not None
    assert result.usd.low == pytest.approx(40_000 * 1e-6 + 6500 * 10e-6)
    assert result.usd.high == pytest.approx(480_000 * 1e-6 + 435_000 * 10e-6)
    assert result.lines() == (
        "model        gpt-x",
        "calls        30 to 70: 40.0k to 480.0k tokens of prompts, 6500 to 435.0k of replies",
        "cost         $0.11 to $4.83 (from the prompts' sizes, without a repair to 4 repairs per loop)",
    )


def test_one_loop_has_no_prompts_that_have_grown() -> None:
    result = forecast(replace(PLAN, loops=1, repairs=0))
    assert result.prompt_tokens.low == result.prompt_tokens.high == 4000
    assert result.lines()[1].startswith("calls        3: 4000 tokens of prompts")


def test_an_open_number_of_loops_gives_one_loop() -> None:
    result = forecast(replace(PLAN, loops=None))
    assert result.calls.low == 3
    assert result.document()["per_loop"] is True
    assert "3 to 7 per loop" in result.lines()[1]
    assert " per loop (from" in result.lines()[2]


def test_a_cap_is_named_where_it_may_end_the_run() -> None:
    assert "$4.83, ended by --budget-usd at $0.50" in forecast(replace(PLAN, budget_usd=0.5)).lines()[2]
    assert "budget" not in forecast(replace(PLAN, budget_usd=50.0)).lines()[2]
    assert "ended by --budget-usd" in forecast(replace(PLAN, budget_usd=50.0, loops=None)).lines()[2]


def test_an_unknown_price_is_unknown_and_names_the_model_and_the_setting() -> None:
    plan = replace(PLAN, models={**PLAN.models, "code": "mystery"}, prices={"gpt-x": PRICE, "mystery": None})
    result = forecast(plan)
    assert result.usd is None
    assert result.unpriced == ("mystery",)
    assert result.lines()[0] == "model        gpt-x (propose, repair, reflect), mystery (code)"
    assert "cost         unknown: no price of mystery is known; FTAGENT_MODEL_PRICES sets it" in result.lines()[2]
    assert json.loads(json.dumps(result.document()))["cost_usd"] is None


def test_past_loops_give_quantiles_and_too_few_do_not_count() -> None:
    past = [LoopUse(calls, 1000.0 * calls, 100.0 * calls, 0.01 * calls) for calls in range(1, 12)]
    result = forecast(PLAN, past)
    assert (result.calls.low, result.calls.high) == (20, 100)
    assert result.usd is not None
    assert (result.usd.low, result.usd.high) == pytest.approx((0.2, 1.0))
    assert (result.loops_seen, result.basis) == (11, "from 11 loops of earlier runs")
    assert forecast(PLAN, past[:2]).loops_seen == 0
    assert forecast(PLAN, [*past, LoopUse(1, 1.0, 1.0, None)]).usd is None


def recorded(path: Path, scenario: str = "llm", model: str = "gpt-x", requests: int = 1) -> None:
    """A run of two complete loops with calls and one that is not complete."""
    path.mkdir(parents=True)
    folder = RunFolder(path)
    folder.write_json(folder.record, {"request": {"scenario": scenario}})
    journal = Journal(folder.journal)
    journal.append(events.Created(scenario, "accuracy", "maximize", 0, events.Limits(), sealed=True))
    journal.append(events.Scored(None, "validation", score_of("accuracy", {"a": 0.0, "b": 1.0})))
    for loop in range(3):
        for index in range(loop + 1):
            journal.append(events.Called(
                loop, "propose", 0, index, "propose", model, "", "", 1000, 100, 0, 200, None, 1.0, requests
            ))  # fmt: skip
        journal.append(events.Called(loop, "propose", 0, loop + 1, "script", "weak", "", "", 50, 5, cost_usd=0.5))
        journal.append(events.Proposed(loop, Hypothesis("a", "b")))
        if loop < 2:
            journal.append(events.Coded(loop, 0, {}))
            journal.append(events.Built(loop))
            journal.append(events.Ran(loop, "no score"))
            journal.append(events.Reflected(loop, Feedback("failed", "no score")))
    journal.close()


def test_past_loops_are_complete_and_of_the_same_scenario_and_models_at_todays_prices(tmp_path: Path) -> None:
    recorded(tmp_path / "log" / "fits")
    recorded(tmp_path / "log" / "scenario", scenario="tabular")
    recorded(tmp_path / "log" / "model", model="gpt-y")
    recorded(tmp_path / "log" / "cached", requests=0)
    recorded(tmp_path / "log" / "damaged")
    journal = tmp_path / "log" / "damaged" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b"propose", b"proposE", 1))
    uses = past_loops(tmp_path / "log", PLAN)
    assert [(use.calls, use.prompt_tokens, use.completion_tokens) for use in uses] == [(2, 1050, 105), (3, 2050, 205)]
    # The price of gpt-x is today's although the record has none; that of the script's model is what was recorded.
    assert [use.usd for use in uses] == pytest.approx([0.5 + 0.002, 0.5 + 0.004])
    assert [use.usd for use in past_loops(tmp_path / "log", replace(PLAN, prices={}))] == [None, None]
    assert past_loops(tmp_path / "nowhere", PLAN) == []


def test_the_newest_runs_are_read_first_and_not_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftagent import forecast as module

    monkeypatch.setattr(module, "_MOST_RUNS", 2)
    for number in range(4):
        recorded(tmp_path / str(number))
    assert len(past_loops(tmp_path, PLAN)) == 4
