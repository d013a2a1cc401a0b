"""What calls of language models cost: the sums, and every place that shows them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from ftagent.cli.progress.live import LiveDisplay
from ftagent.cli.progress.plain import PlainLines
from ftagent.cli.watching import closing
from ftagent.core import events
from ftagent.core.documents import finished
from ftagent.core.journal import Journal, read_records
from ftagent.core.run_folder import RunFolder
from ftagent.core.state import State
from ftagent.core.usage import usage
from ftagent.report import write_report
from ftagent.report.text import dollars, quantity

from .conftest import CommandLine
from .test_commands import check


def called(
    loop: int | None, step: str, role: str, prompt: int, reply: int, cost: float | None, model: str = "gpt-x",
    requests: int = 1,
) -> events.Called:  # fmt: skip
    return events.Called(
        loop, step, 0, 0, role, model, "a" * 64, "b" * 64, prompt, reply, reply // 2, prompt // 4, cost, 1.5, requests
    )  # type: ignore[arg-type]


CALLS = (
    called(0, "propose", "propose", 1000, 100, 0.01),
    called(0, "code", "code", 2000, 400, 0.02, requests=3),
    called(0, "code", "repair", 3000, 200, 0.03),
    called(1, "propose", "propose", 12_000, 100, 0.04),
    called(1, "run", "script", 500, 60, 0.02, "weak"),
    called(None, "run", "script", 100, 40, 0.005, "weak", requests=0),
    called(3, "propose", "propose", 1000, 100, 0.005),
)


def with_calls(run: RunFolder, *more: events.Event, budget: float | None = None) -> RunFolder:
    journal = Journal(run.journal)
    if budget is not None:
        journal.append(events.LimitsChanged(events.Limits(budget_usd=budget)))
    for event in (*CALLS, *more):
        journal.append(event)
    journal.close()
    return run


@pytest.fixture
def paid(open_run: RunFolder) -> RunFolder:
    """The open run with calls of two models, a budget, and one reply from the cache."""
    return with_calls(open_run, budget=0.5)


def test_the_sums_agree_with_each_other_and_with_the_state(paid: RunFolder) -> None:
    state = paid.state()
    used = usage(state)
    assert (used.total.calls, used.total.requests, used.total.prompt_tokens) == (7, 8, 19_600)
    assert (used.total.completion_tokens, used.total.reasoning_tokens, used.total.cached_tokens) == (1000, 500, 4900)
    assert used.total.cost_usd == pytest.approx(0.13) == state.cost_usd
    for parts in (used.by_role, used.by_loop, used.by_model):
        assert sum(part.calls for part in parts.values()) == 7
        assert sum(part.cost_usd for part in parts.values()) == pytest.approx(0.13)
        assert sum(part.tokens for part in parts.values()) == used.total.tokens
    assert list(used.by_role) == ["propose", "code", "repair", "script"]
    assert used.by_loop_and_role[1]["script"].calls == 1
    assert used.taken_back_usd == 0.0


def test_what_was_taken_back_is_told_apart(paid: RunFolder, ftagent: CommandLine) -> None:
    journal = Journal(paid.journal)
    journal.append(events.Rewound(1, "propose"))
    journal.close()
    used = usage(paid.state())
    assert used.total.cost_usd == pytest.approx(0.065)
    assert used.taken_back_usd == pytest.approx(0.065)
    assert "$0.0650 more went to loops that were taken back" in write_report(paid, paid.state())[0].read_text()
    check("show", ftagent("show", "open", "--json").out)


def test_dollars_of_an_older_journal_are_not_taken_back(tmp_path: Path) -> None:
    state = State(tmp_path)
    for sequence, event in enumerate(older_events()):
        state.apply(events.Record(sequence, 0.0, 0.0, event))
    assert state.cost_usd == pytest.approx(0.3)
    assert usage(state).taken_back_usd == 0.0


def older_events() -> list[events.Event]:
    """A loop of the first version: dollars in the events of steps, no calls."""
    from ftagent.core.types import Hypothesis

    created = events.Created("noop", "accuracy", "maximize", 0, events.Limits(), sealed=True)
    return [created, events.Proposed(0, Hypothesis("a", "b"), 0.1), events.Coded(0, 0, {}, 0.2)]


def test_show_tells_cost_calls_and_tokens_by_loop_and_role(paid: RunFolder, ftagent: CommandLine) -> None:
    out = ftagent("show", "open").out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["LOOP"][5:] == ["COST", "CALLS", "TOKENS", "HYPOTHESIS"]
    assert rows["0"][-5:-2] == ["$0.0600", "3", "6700"]
    assert rows["1"][5:8] == ["$0.0600", "2", "12.7k"]
    assert rows["propose"] == ["propose", "3", "14.0k", "300", "150", "$0.0550"]
    assert "$0.13/0.50" in out
    one = ftagent("show", "open", "--loop", "0").out
    assert "language model: propose 1 call, 1000 + 100 tokens, $0.0100; code 1 call" in one


def test_a_run_without_calls_shows_no_costs(finished_run: RunFolder, ftagent: CommandLine) -> None:
    out = ftagent("show", "first").out
    assert "CALLS" not in out
    assert "$0.00" in out
    assert "## Language model" not in write_report(finished_run, finished_run.state())[0].read_text()
    assert "usage" not in json.loads(ftagent("show", "first", "--json").out)


def test_json_follows_its_schemas(paid: RunFolder, ftagent: CommandLine) -> None:
    shown = check("show", ftagent("show", "open", "--json").out)
    assert set(shown["usage"]["roles"]) == {"propose", "code", "repair", "script"}
    assert set(shown["usage"]["models"]) == {"gpt-x", "weak"}
    assert shown["experiments"][0]["usage"]["roles"]["repair"]["prompt_tokens"] == 3000
    assert "usage" not in shown["experiments"][2]
    one = check("show_loop", ftagent("show", "open", "--loop", "1", "--json").out)
    assert one["usage"]["cost_usd"] == pytest.approx(0.06)
    check("report", ftagent("report", "open", "--format", "json").out)


def test_the_report_has_a_section_with_roles_models_and_loops(paid: RunFolder) -> None:
    text = write_report(paid, paid.state())[0].read_text()
    section = text.split("## Language model")[1].split("\n## ")[0]
    for line in (
        "- 7 calls with 8 requests, failed ones included.",
        "- The providers had 4900 of the prompt tokens cached.",
        "| repair | 1 | 3000 | 200 | 100 | $0.0300 |",
        "| all | 7 | 19.6k | 1000 | 500 | $0.13 |",
        "| weak | 2 | 600 | 100 | 50 | $0.0250 |",
        "| before | 1 | 100 | 40 | 20 | $0.0050 |",
        "| 1 | 2 | 12.5k | 160 | 80 | $0.0600 |",
        "| 3 | 1 | 1000 | 100 | 50 | $0.0050 |",
    ):
        assert line in section, line
    assert "| cost | $0.13 | $0.50 |" in text


def test_an_unknown_price_makes_the_cost_unknown_everywhere(open_run: RunFolder, ftagent: CommandLine) -> None:
    run = with_calls(open_run, called(2, "propose", "propose", 10, 10, None, "mystery"))
    state = run.state()
    text = write_report(run, state)[0].read_text()
    assert "The price of 1 call is unknown, and so is the cost of the run." in text
    assert "| cost | unknown (at least $0.13) | none |" in text
    assert "| mystery | 1 | 10 | 10 | 5 | unknown |" in text
    out = ftagent("show", "open").out
    assert "cost unknown (at least $0.13)" in out
    assert [line for line in out.splitlines() if line.startswith("2 ") and "unknown" in line]
    assert check("show", ftagent("show", "open", "--json").out)["usage"]["unpriced_calls"] == 1
    document = check("finished", json.dumps(finished(run, state, "stopped")))
    assert document["unpriced_calls"] == 1
    assert "unknown (at least $0.13) for model calls" in ending(run, document)


def ending(run: RunFolder, document: dict[str, object]) -> str:
    from ftagent.app import Result

    return closing(Result(run.path, 0, document))[0]


def test_progress_tells_what_is_spent_of_what_may_be(paid: RunFolder) -> None:
    state = paid.state()
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=40, color_system=None)
    display = LiveDisplay(console)
    display.begin(state)
    with console.capture() as captured:
        console.print(display._region.picture())
    display.close()
    assert "cost $0.13/0.50" in captured.get()
    out = io.StringIO()
    lines = PlainLines(out, io.StringIO())
    lines.begin(state)
    reflected = next(r for r in read_records(paid.journal) if isinstance(r.event, events.Reflected))
    lines.event(reflected)
    assert "loop 0 feedback: accept, as measured ($0.13/0.50 so far)" in out.getvalue()
    assert "$0.13 for model calls" in ending(paid, finished(paid, state, "completed"))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [((0.0,), "$0.00"), ((0.00123,), "$0.0012"), ((1.234,), "$1.23"), ((0.12, 0, 0.5), "$0.12/0.50"),
     ((0.0, 3), "unknown"), ((0.5, 1, 9.0), "unknown (at least $0.50)")],
)  # fmt: skip
def test_dollars(given: tuple[float, int, float], wanted: str) -> None:
    assert dollars(*given) == wanted


@pytest.mark.parametrize(
    ("count", "wanted"),
    [(0, "0"), (9999, "9999"), (10_000, "10.0k"), (999_949, "999.9k"), (999_950, "1.00M"), (4_560_000, "4.56M")],
)
def test_quantity(count: int, wanted: str) -> None:
    assert quantity(count) == wanted
