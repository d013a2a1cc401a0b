"""The report on a tuned configuration and its Optuna study, from journals written by hand."""

from __future__ import annotations

import json
import re
import socket
import string
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import optuna
import pytest

from ftagent.core.run_folder import RunFolder
from ftagent.core.search_plan import Constraint, Halving, Objective, SearchPlan
from ftagent.report.tuning.importance import importance
from ftagent.report.tuning.optuna_study import write_study
from ftagent.report.tuning.study import Study, study_of
from ftagent.report.tuning.texts import TEXTS, Words
from ftagent.report.tuning.writing import tuning_text, write_tuning_report
from support.tuned import TRIED, Tried, record_tuning

CJK = re.compile(r"[\u4e00-\u9fff]")
RICH = SearchPlan(
    "joint",
    halving=Halving("dev"),
    objectives=(Objective("latency_ms"),),
    constraints=(Constraint("latency_ms", 15.0),),
)


def text_of(folder: RunFolder, language: str = "en") -> str:
    return tuning_text(folder, folder.state(), language, folder.path / "r.md")  # type: ignore[arg-type]


def tuned(folder: RunFolder) -> Study:
    study = study_of(folder, folder.state())
    assert study is not None
    return study


def row(text: str, name: str) -> list[str]:
    """Cells of the first table row whose first cell is `name`."""
    found = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_every_round_tells_change_score_and_both_differences(tmp_path: Path) -> None:
    text = text_of(record_tuning(tmp_path / "run"))
    assert row(text, "loop 2")[1:] == [
        "`LEARNING_RATE` `2e-05` → `5e-05`, `TRAIN_BATCH_SIZE` `32` → `64`", "0.800 (0.739 to 0.850)", "+0.2000",
        "+0.1000", "accepted",
    ]  # fmt: skip
    assert row(text, "loop 4")[3:] == ["+0.1800", "-0.0200", "not better"]
    assert row(text, "loop 1")[2:] == ["missing", "-", "-", "stopped early"]
    assert row(text, "loop 3")[5] == "failed"


def test_advice_clamped_values_and_rules_are_told(tmp_path: Path) -> None:
    text = text_of(record_tuning(tmp_path / "run"))
    assert "- Advice: as measured; it moved; advice 2" in text
    assert r"- Note: TRAIN\_BATCH\_SIZE 100 was clamped to 64" in text
    assert "stopped early: dev 0.21 at step 10 is below 0.40" in text
    assert r"no \<b\>metrics\</b\> \| none" in text  # what a program printed is no markup


def test_the_default_is_that_of_the_run_and_the_best_is_marked(tmp_path: Path) -> None:
    text = text_of(record_tuning(tmp_path / "run"))
    assert row(text, "`TRAIN_BATCH_SIZE`")[1:3] == ["`32`", "**`64`**"]
    assert row(text, "`OUTPUT_DIR_ROOT`")[1:] == ["`out`", "`out`", "not tuned"]


def test_the_summary_claims_what_the_sealed_test_showed(tmp_path: Path) -> None:
    text = text_of(record_tuning(tmp_path / "run"))
    claim = "Loop 2 is better than the default configuration: accuracy 0.750 (0.686 to 0.805) against 0.550"
    assert text.count(claim) == 2
    assert row(text, "the sealed test")[3:] == ["+0.2000", "200"]
    assert "p = 1e-05" in text
    unchanged = text_of(record_tuning(tmp_path / "default", selected=None))
    assert "the default is recommended" in unchanged
    assert row(unchanged, "the sealed test")[1:4] == ["0.550 (0.481 to 0.617)", "-", "-"]


def test_a_smaller_metric_is_better_where_it_is_minimised(tmp_path: Path) -> None:
    folder = record_tuning(tmp_path / "run", direction="minimize")
    best = tuned(folder).best_before(6)
    assert best is not None
    assert best.loop is None
    assert row(text_of(folder), "loop 0")[3:5] == ["+0.1000", "+0.1000"]
    assert "lower is better" in text_of(folder)


def test_both_languages_say_the_same(tmp_path: Path) -> None:
    folder = record_tuning(tmp_path / "run", RICH)
    english, chinese, both = (text_of(folder, language) for language in ("en", "zh", "both"))
    assert not CJK.search(english)
    shape = [re.sub(r"[^#|-].*", "", line) for line in english.splitlines()]
    assert [re.sub(r"[^#|-].*", "", line) for line in chinese.splitlines()] == shape
    numbers = r"(?<![\w.])[-+]?\d+\.\d+"
    assert re.findall(numbers, chinese) == re.findall(numbers, english)
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.sub(stamp, "", both) == re.sub(stamp, "", f"{english}\n---\n\n{chinese}")


def test_the_catalogue_is_whole() -> None:
    for key, (english, chinese) in TEXTS.items():
        fields = [
            sorted(name for _, name, _, _ in string.Formatter().parse(text) if name) for text in (english, chinese)
        ]
        assert fields[0] == fields[1], key
        assert not CJK.search(english), key
        if key not in ("interval", "item", "and", "tpe"):
            assert CJK.search(chinese), key
            assert not re.search(r"[\u4e00-\u9fff][,;:]", chinese), f"{key}: a western comma after a Chinese character"
    with pytest.raises(KeyError):
        Words("zh")("no such text")


def _fields(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


def test_several_objectives_show_the_front_within_the_constraints(tmp_path: Path) -> None:
    folder = record_tuning(tmp_path / "run", RICH)
    assert [one.loop for one in tuned(folder).front()] == [None, 0, 2]
    text = text_of(folder)
    assert "not better, exceeds `latency_ms`" in row(text, "loop 4")[5]
    assert row(text, "`latency_ms`")[1:] == ["15", "3 of 4 measured", "loop 4 (20)"]
    assert (tmp_path / "run/r/pareto.png").read_bytes().startswith(b"\x89PNG")
    plain = text_of(record_tuning(tmp_path / "plain"))
    assert "Pareto" not in plain
    assert not (tmp_path / "plain/r/pareto.png").exists()


def test_what_no_trial_has_or_keeps_is_told(tmp_path: Path) -> None:
    plan = SearchPlan("joint", objectives=(Objective("size"),), constraints=(Constraint("latency_ms", 0.1),))
    text = text_of(record_tuning(tmp_path / "run", plan, selected=None))
    assert "No trial has all objectives and keeps the constraints." in text
    assert "No configuration that keeps the constraints scored better than the default" in text


def test_pictures_lie_beside_the_report(tmp_path: Path) -> None:
    folder = record_tuning(tmp_path / "run", RICH)
    written = write_tuning_report(folder, folder.state(), "en")
    assert written.report.parent == tmp_path / "run/docs/reports"
    links = re.findall(r"!\[[^]]*\]\(([^)]*)\)", written.report.read_text())
    assert len(links) == 3
    assert all((written.report.parent / link).is_file() for link in links)
    elsewhere = write_tuning_report(folder, folder.state(), "en", str(tmp_path / "elsewhere"))
    assert elsewhere.study == tmp_path / "elsewhere/run.db"
    again = write_tuning_report(folder, folder.state(), "en", str(tmp_path / "elsewhere"))
    assert again.report != elsewhere.report


def _trials(effect: float) -> list[Tried]:
    rates = [(rate, size) for rate in (1e-5, 5e-5, 1e-4) for size in (8, 16, 64)]
    return [
        Tried({"LEARNING_RATE": rate, "TRAIN_BATCH_SIZE": size}, 0.4 + effect * (size == 64) + 100 * rate)
        for rate, size in rates
    ]


def test_importance_names_what_moved_the_score(tmp_path: Path) -> None:
    found = importance(tuned(record_tuning(tmp_path / "run", tried=_trials(0.4), finish=False)))
    assert next(iter(found.shares)) == "TRAIN_BATCH_SIZE"
    assert found.shares["TRAIN_BATCH_SIZE"] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert "SCHEDULE" not in found.shares  # it was never varied
    text = text_of(RunFolder(tmp_path / "run"))
    assert row(text, "`TRAIN_BATCH_SIZE`")[0] == "`TRAIN_BATCH_SIZE`"
    assert "fANOVA on 10 trials" in text


def test_importance_that_cannot_be_known_is_not_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = record_tuning(tmp_path / "few", tried=TRIED[:2], finish=False)
    assert "2 trials with a score are too few" in text_of(few)
    flat = record_tuning(
        tmp_path / "flat", tried=[Tried({"TRAIN_BATCH_SIZE": n}, 0.6) for n in (8, 16, 64)], finish=False
    )
    assert "do not differ" in text_of(flat)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "scikit-learn is not installed" in text_of(few)


def test_a_run_without_a_round_has_a_report(tmp_path: Path) -> None:
    text = text_of(record_tuning(tmp_path / "run", tried=[], finish=False))
    assert "Nothing is claimed yet." in text
    assert "| the default configuration | nothing | 0.600" in text


def loaded(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="run", storage=f"sqlite:///{path}")


def test_optuna_opens_the_study(tmp_path: Path) -> None:
    folder = record_tuning(tmp_path / "run", SearchPlan(halving=Halving("dev")))
    study = loaded(write_study(folder, tuned(folder), tmp_path / "study.db"))
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert [trial.state.name for trial in study.trials] == [
        "COMPLETE", "COMPLETE", "PRUNED", "COMPLETE", "FAIL", "COMPLETE"]  # fmt: skip
    assert study.best_trial.number == 3
    assert study.best_trial.params == {"LEARNING_RATE": 5e-5, "TRAIN_BATCH_SIZE": 64, "SCHEDULE": "linear"}
    assert study.best_trial.intermediate_values == {10: 0.5, 20: 0.7}
    assert study.best_trial.user_attrs["loop"] == 2
    assert study.best_trial.user_attrs["notes"] == ["TRAIN_BATCH_SIZE 100 was clamped to 64"]
    assert study.best_trial.user_attrs["fixed"] == {"OUTPUT_DIR_ROOT": "out"}
    low = study.trials[1].distributions["LEARNING_RATE"]
    assert isinstance(low, optuna.distributions.FloatDistribution)
    assert (low.low, low.high, low.log) == (1e-6, 1e-3, True)
    assert study.trials[0].params["TRAIN_BATCH_SIZE"] == 32
    assert study.trials[0].user_attrs["loop"] == "default"
    started, ended = study.trials[1].datetime_start, study.trials[1].datetime_complete
    assert started is not None
    assert ended is not None
    assert started <= ended
    assert started.year >= 2025


def test_a_study_of_several_objectives_has_a_pareto_front(tmp_path: Path) -> None:
    folder = record_tuning(tmp_path / "run", RICH)
    study = loaded(write_study(folder, tuned(folder), tmp_path / "study.db"))
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert sorted(trial.user_attrs["loop"] for trial in study.best_trials if trial.number) == [0, 2]


def test_a_value_outside_the_space_is_kept_beside_it(tmp_path: Path) -> None:
    folder = record_tuning(tmp_path / "run", tried=[Tried({"LEARNING_RATE": 0.5}, 0.9)], finish=False)
    (trial,) = loaded(write_study(folder, tuned(folder), tmp_path / "study.db")).trials[1:]
    assert "LEARNING_RATE" not in trial.params
    assert trial.user_attrs["fixed"]["LEARNING_RATE"] == 0.5


def test_a_study_is_replaced_whole(tmp_path: Path) -> None:
    folder, path = record_tuning(tmp_path / "run"), tmp_path / "study.db"
    write_study(folder, tuned(folder), path)
    write_study(folder, tuned(folder), path)
    assert len(loaded(path).trials) == 6
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith((".tmp", "study"))] == ["study.db"]


@pytest.mark.timeout(120)
def test_optuna_dashboard_serves_the_trials(tmp_path: Path) -> None:
    folder = record_tuning(tmp_path / "run", SearchPlan(halving=Halving("dev")))
    path = write_study(folder, tuned(folder), tmp_path / "study.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = Path(sys.executable).with_name("optuna-dashboard")
    server = subprocess.Popen(
        [str(command), f"sqlite:///{path}", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        (summary,) = _get(port, "studies")["study_summaries"]
        assert summary["study_name"] == "run"
        detail = _get(port, f"studies/{summary['study_id']}")
    finally:
        server.terminate()
        server.wait(timeout=30)
    assert [trial["state"] for trial in detail["trials"]] == [
        "Complete", "Complete", "Pruned", "Complete", "Fail", "Complete"]  # fmt: skip
    shown = detail["trials"][3]
    assert shown["values"] == [0.8]
    assert {param["name"]: param["param_external_value"] for param in shown["params"]}["TRAIN_BATCH_SIZE"] == "64"
    assert [point["value"] for point in shown["intermediate_values"]] == [0.5, 0.7]


def _get(port: int, what: str) -> dict:  # type: ignore[type-arg]  # of JSON
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{what}", timeout=10) as reply:
                return dict(json.load(reply))
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the dashboard did not come up")
