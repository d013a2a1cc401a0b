"""Early stopping, on curves made by hand."""

from __future__ import annotations

import pytest

from ftagent.search import Trial, halving

STEPS = (10, 20, 40, 60, 80, 100)


def trial(*live: float) -> Trial:
    return Trial({}, live[-1], curve=tuple(zip(STEPS, live, strict=True)))


STEADY = [
    trial(0.30, 0.40, 0.50, 0.55, 0.58, 0.60),
    trial(0.20, 0.30, 0.40, 0.45, 0.48, 0.50),
    trial(0.10, 0.20, 0.30, 0.35, 0.38, 0.40),
    trial(0.05, 0.10, 0.20, 0.25, 0.28, 0.30),
]


def test_rungs_stand_at_seen_steps_geometrically() -> None:
    assert [rung.step for rung in halving.stopping(STEADY, "maximize", 2, 3)] == [20, 40, 60]
    assert [rung.step for rung in halving.stopping(STEADY, "maximize", 3, 2)] == [20, 40]


def test_the_best_share_goes_on() -> None:
    first, second = halving.stopping(STEADY, "maximize", 2, 2)
    assert (first.step, first.needs) == (40, 0.40)
    assert (second.step, second.needs) == (60, 0.45)


def test_no_trial_needs_more_than_the_incumbent_had() -> None:
    late = trial(0.01, 0.02, 0.03, 0.30, 0.70, 0.90)
    for rung in halving.stopping([*STEADY, late], "maximize", 4, 2):
        assert rung.needs <= dict(late.curve)[rung.step]


def test_a_lag_that_was_made_good_once_stops_nobody() -> None:
    late = trial(0.00, 0.10, 0.10, 0.30, 0.50, 0.59)
    first, second = halving.stopping([*STEADY, late], "maximize", 4, 2)
    assert (first.step, second.step) == (10, 40)
    # It was 0.2 behind the second at step 10, 0.3 at step 40, and ended before it.
    assert first.needs <= 0.30 - 0.2
    assert second.needs <= 0.50 - 0.3


def test_minimised_metrics_are_bounded_from_above() -> None:
    mirrored = [Trial({}, -(one.value or 0.0), curve=tuple((s, -v) for s, v in one.curve)) for one in STEADY]
    upper = halving.stopping(mirrored, "minimize", 2, 3)
    assert [(r.step, -r.needs) for r in upper] == [
        (r.step, r.needs) for r in halving.stopping(STEADY, "maximize", 2, 3)
    ]


def test_stopped_trials_count_among_those_seen() -> None:
    stopped = [Trial({}, None, curve=((20, 0.01), (40, 0.02)), stopped=True) for _ in range(8)]
    (rung,) = halving.stopping([*STEADY, *stopped], "maximize", 2, 1)
    assert rung.needs < 0.4


@pytest.mark.parametrize("count", [0, 1, 3])
def test_nothing_is_stopped_while_little_is_known(count: int) -> None:
    failed = [Trial({}, None), Trial({}, None, curve=((10, 0.1),), stopped=True), Trial({}, 9.0)]
    assert halving.stopping([*STEADY[:count], *failed], "maximize", 2, 3) == ()


def test_a_live_metric_that_is_not_finite_is_no_bound() -> None:
    broken = [trial(float("nan"), 0.4, float("nan"), 0.5, 0.5, 0.7), *STEADY]
    assert all(rung.needs == rung.needs for rung in halving.stopping(broken, "maximize", 2, 3))


def test_a_reduction_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="above 1"):
        halving.stopping(STEADY, "maximize", 1, 3)
