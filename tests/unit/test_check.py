"""The static check: what would fail is told before anything is executed, all at once; what works passes."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ftagent.agents.scripted import Act, ScriptedAgent
from ftagent.core.check import MAX_LINES, STATIC_CHECK, static_check
from ftagent.core.errors import AgentUnavailable
from ftagent.core.events import Limits
from ftagent.core.run_folder import RunFolder
from ftagent.core.types import Brief, Execution, Experiment, Files
from ftagent_noop.scenario import NoopScenario
from support import Nowhere, drive, noop, story

MODULES = frozenset(sys.stdlib_module_names) | {"torch"}


def faults(files: dict[str, str], **more: object) -> list[str]:
    failed = static_check(files, **{"modules": MODULES, **more})  # type: ignore[arg-type]
    return failed.tail.splitlines() if failed else []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.py", "x = 1\nif x\n    pass\n", "a.py:2: expected ':': if x"),
        ("a.py", "return 3\n", "a.py:1: 'return' outside function"),
        ("a.py", "x = 1\0", "a.py:1: source code string cannot contain null bytes"),
        ("a.py", "(" * 100_000, "a.py:1: too many nested parentheses"),
        ("a.py", "x = " + "-" * 200_000 + "1", "a.py:1: "),
        ("a.py", "import os\nimport pandas as pd\n", "a.py:2: no module 'pandas' in this environment"),
        ("a.py", "def f():\n    from peft.utils import x\n", "a.py:2: no module 'peft' in this environment"),
        ("a.py", "open('/etc/passwd')\n", "a.py:1: path '/etc/passwd' is absolute; "),
        ("a.py", "\nfrom pathlib import Path\nPath(f'/data/{1}')\n", "a.py:3: path '/data/' is absolute; "),
        ("a.py", "import os\nos.listdir('..' + '/x')\n", "a.py:2: path '..' leads out of the workspace; "),
        ("a.py", "import io\nio.open(file='~/.env')\n", "a.py:2: path '~/.env' leads to a home folder; "),
        ("a.json", '{"a": 1,\n"b"}', "a.json:2: not JSON: Expecting ':' delimiter"),
        ("a.json", "[" * 100_000, "a.json:1: not JSON: "),
        ("a.yaml", "a: 1\nb: [1\n", "a.yaml:3: not YAML: did not find expected ',' or ']'"),
        ("a.yml", "a: b: c\n", "a.yml:1: not YAML: mapping values are not allowed in this context"),
        ("a.yaml", "[" * 100_000, "a.yaml:1: not YAML that can be read: nested too deeply"),
    ],
)
def test_a_fault_is_told_with_its_line(name: str, text: str, fault: str) -> None:
    began = time.monotonic()
    (found,) = faults({name: text})
    assert found.startswith(fault)
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    "text",
    [
        "import torch, helper\nfrom package.part import x\nfrom . import y\n",
        "try:\n    import pandas\nexcept (ImportError, ValueError):\n    pandas = None\n",
        "try:\n    import pandas\nexcept:\n    pass\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas\n",
        "open('train.jsonl', 'w')\nopen('/tmp/x')\nopen('/dev/null')\nopen('/dev/shm/y')\n",
        "import os\nopen(os.environ['FTAGENT_INPUT_ROWS'])\nopen(f\"{os.environ['FTAGENT_INPUT_MODEL']}/../x\")\n",
        "text = 'a/b'.replace('/', '..')\nprint('/etc/passwd', '~')\n",
        "pattern = '\\d'\n",
    ],
)
def test_what_works_passes(text: str) -> None:
    assert faults({"a.py": text, "helper.py": "", "package/part.py": "x = 1\n"}) == []


def test_all_faults_come_at_once_and_at_most_ten() -> None:
    files = {"a.py": "import one\nimport one\n", "b.json": "{", "c/train.jsonl": "", "predictions.jsonl": ""}
    found = faults(files, required=("a.py", "z.yaml"), reserved=("predictions.jsonl", "c"))
    assert [line.split(":")[0] for line in found] == ["z.yaml", "a.py", "b.json", "c/train.jsonl", "predictions.jsonl"]
    assert found[0] == "z.yaml: this file is missing"
    assert found[3] == "c/train.jsonl: a stage writes c, an experiment must not bring it"
    many = static_check({"a.py": "".join(f"import missing{n}\n" for n in range(40))}, modules=MODULES)
    assert many is not None
    assert len(many.tail.splitlines()) == MAX_LINES
    assert many.tail.endswith("and 31 more\n")
    assert many.detail == "a.py:1: no module 'missing0' in this environment (and 39 more)"


def test_unknown_modules_are_not_guessed() -> None:
    assert static_check({"a.py": "import anything\n"}) is None
    assert static_check({}) is not None


class Knows(Nowhere):
    async def modules(self) -> frozenset[str]:
        return frozenset({"json"})


class NeedsMore(NoopScenario):
    def brief(self) -> Brief:
        return replace(super().brief(), required_files=("params.json",), reserved_files=("predictions.jsonl",))


def test_the_engine_checks_before_it_executes_and_keeps_the_fault(tmp_path: Path) -> None:
    good = noop(tmp_path).brief().render({})
    attempts = [{"a.py": "import json, torch\n"}, {**good, "predictions.jsonl": ""}, {**good, "a.py": "import json\n"}]
    scenario = NeedsMore(noop(tmp_path).options, noop(tmp_path).context)
    drive(tmp_path / "run", scenario, ScriptedAgent([Act(files=attempts)]), Knows(), limits=Limits(loop_n=1))
    (experiment,) = RunFolder(tmp_path / "run").state().experiments
    assert experiment.failure == ""
    assert experiment.attempts == 3
    told = [(record.attempt, record.execution.stage, record.execution.tail) for record in experiment.stages]
    assert told == [
        (0, STATIC_CHECK, "params.json: this file is missing\na.py:1: no module 'torch' in this environment\n"),
        (1, STATIC_CHECK, "predictions.jsonl: a stage writes predictions.jsonl, an experiment must not bring it\n"),
    ]


class Unreachable(ScriptedAgent):
    """Its model cannot be reached when the second repair is due."""

    async def repair(self, brief: Brief, experiment: Experiment, failure: Execution) -> Files:
        if experiment.attempts == 2:
            raise AgentUnavailable("no answer")
        return await super().repair(brief, experiment, failure)


def test_a_resumed_step_repairs_what_failed_last(tmp_path: Path) -> None:
    attempts = [{"a.py": "import one\n"}, {"a.py": "import two\n"}, {"params.json": '{"x": 1, "mode": "plain"}'}]
    acts, limits = [Act(files=attempts)], Limits(loop_n=1)
    drive(tmp_path / "whole", noop(tmp_path), ScriptedAgent(acts), Knows(), limits=limits)
    with pytest.raises(AgentUnavailable):
        drive(tmp_path / "cut", noop(tmp_path), Unreachable(acts), Knows(), limits=limits)
    drive(tmp_path / "cut", noop(tmp_path), ScriptedAgent(acts), Knows(), limits=limits)
    assert story(tmp_path / "cut") == story(tmp_path / "whole")
