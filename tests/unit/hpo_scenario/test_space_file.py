"""space.yaml: what it may say, and the line that each fault gets."""

from __future__ import annotations

import re

import pytest

from ftagent.core.errors import RequestError
from ftagent.core.types import Parameter
from ftagent_hpo.space_file import parse_space

SPACE = """\
metric: {name: accuracy, test: test_accuracy}
seed: --seed
parameters:
  lr: {type: float, range: [1e-5, 1e-1], scale: log, default: 1e-3}
  batch: {type: int, range: [4, 128], default: 32, memory: true, cost: more memory}
  optimizer: {type: choice, choices: [sgd, adam], default: adam, name: --opt}
  depth: {type: int, range: [1, 9], default: 3, tunable: false}
  out: folder
"""


def test_a_space_is_read_in_the_order_of_the_file() -> None:
    space = parse_space(SPACE, "space.yaml")
    assert space.parameters == (
        Parameter("lr", "float", 0.001, low=1e-5, high=0.1, log=True),
        Parameter("batch", "int", 32, low=4.0, high=128.0, cost="more memory"),
        Parameter("optimizer", "choice", "adam", choices=("sgd", "adam")),
        Parameter("depth", "int", 3, low=1.0, high=9.0, tunable=False),
    )
    assert space.fixed == {"out": "folder"}
    assert (space.uses["batch"].memory, space.uses["optimizer"].name) == (True, "--opt")
    assert space.model.seed is not None
    assert (space.model.seed.name, space.model.seed.repeats) == ("--seed", 1)
    assert (space.model.metric.direction, space.model.metric.live_metric) == ("maximize", "accuracy")


@pytest.mark.parametrize(
    ("live", "name"),
    [("loss", "loss"), ("{name: loss, direction: minimize}", "-loss"), ("{name: f1, direction: maximize}", "f1")],
)
def test_a_live_metric_may_run_against_the_metric(live: str, name: str) -> None:
    text = SPACE.replace("{name: accuracy,", f"{{name: accuracy, live: {live},")
    assert parse_space(text, "s.yaml").model.metric.live_metric == name


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("scale: log", "scal: log", "space.yaml:4: parameters.lr.scal: unknown key; did you mean scale? valid: "),
        ("seed: --seed", "sed: --seed", "space.yaml:2: sed: unknown key; did you mean seed? valid: arguments, files"),
        ("test:", "tst:", "space.yaml:1: metric.tst: unknown key; did you mean test? valid: direction, live,"),
        ("seed: --seed", "seed: {nam: s, name: t}",
         "space.yaml:2: seed.nam: unknown key; did you mean name? valid: name, repeats"),
        ("type: int", "type: intt",
         "space.yaml:5: parameters.batch.type: input should be 'float', 'int' or 'choice', not 'intt' (did you"),
        ("seed: --seed", "pass: flag",
         "space.yaml:2: pass: input should be 'flags', 'json' or 'environment', not 'flag' (did you mean flags?)"),
        ("default: 1e-3", "default: 1", "space.yaml:4: parameters.lr.default: 1 is outside its range 1e-05 to 0.1"),
        ("default: adam", "default: adan",
         "space.yaml:6: parameters.optimizer.default: 'adan' is none of its choices: sgd, adam"),
        (", default: 32", "", "space.yaml:5: parameters.batch.default: is missing: every search starts from"),
        ("[1e-5, 1e-1]", "[1, 0.1]", "space.yaml:4: parameters.lr: range [1, 0.1] must be two numbers, the lower"),
        ("[4, 128]", "[4, 4]", "space.yaml:5: parameters.batch: range [4, 4] must be two numbers, the lower one first"),
        ("1e-5", "0", "space.yaml:4: parameters.lr: scale log needs a range above 0, not from 0"),
        ("[1e-5, 1e-1]", "[a, 1]", "space.yaml:4: parameters.lr.range.0: input should be a valid number"),
        ("  out: folder", "  lr: 3", "space.yaml:8: parameters.lr: stands twice, first in line 4"),
        ("seed: --seed", "memory_mb: lots", "space.yaml:2: memory_mb: input should be a valid integer"),
        ("metric: {name: accuracy, test: test_accuracy}", "", "space.yaml: metric: is missing"),
        ("test: test_accuracy", "test: accuracy", "space.yaml:1: metric.test: must be another key than metric.name"),
        ("seed: --seed", "seed: --lr", "space.yaml:2: seed: lr is a parameter already"),
        ("  out:", "  a b:", "space.yaml:8: parameters.a b: a name has letters, digits"),
        ("name: --opt", "memory: true", "space.yaml:6: parameters.optimizer: memory: true is for numbers alone"),
        ("metric: {", "metric: [", "space.yaml:1"),
        ("[sgd, adam]", "[sgd, adam, sgd]", "space.yaml:6: parameters.optimizer: choice sgd stands twice"),
        ("seed: --seed", "output: ../models", "space.yaml:2: output: a folder that the script writes: file name"),
        ("seed: --seed", "output: /tmp/models", "space.yaml:2: output: a folder that the script writes: file name"),
        ("seed: --seed", "output: .", "space.yaml:2: output: a folder that the script writes: file name"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_its_place(old: str, new: str, line: str) -> None:
    assert old in SPACE
    with pytest.raises(RequestError) as caught:
        parse_space(SPACE.replace(old, new, 1), "space.yaml")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_every_fault_is_told() -> None:
    text = SPACE.replace("type: int", "type: intt").replace("default: 1e-3", "default: 7").replace("[sgd, adam]", "3")
    with pytest.raises(RequestError) as caught:
        parse_space(text, "space.yaml")
    assert re.findall(r"space\.yaml:(\d)", str(caught.value)) == ["4", "5", "6", "7"]


@pytest.mark.parametrize(
    "parameters", ["{}", "\n  out: folder", "\n  n: {type: int, range: [1, 2], default: 1, tunable: false}"]
)
def test_a_space_with_nothing_to_tune_is_refused(parameters: str) -> None:
    with pytest.raises(RequestError, match=r"^s.yaml:2: parameters: nothing to tune; give at least one"):
        parse_space(f"metric: loss\nparameters: {parameters}\n", "s.yaml")
