"""`ftagent env`: what is there, showing that it confines, and what cannot be asked for. No engine is needed here."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ftagent.core.errors import RequestError
from ftagent.environments import sandbox
from ftagent.environments.choosing import choose, docker_options, stack_of
from ftagent.environments.local import LocalEnvironment
from ftagent.settings import load

from .conftest import CommandLine

NOWHERE = "unix:///nowhere/docker.sock"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an engine nor a conda."""
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in ("FT_DOCKER_IMAGE", "DS_DOCKER_IMAGE", "DS_DOCKERFILE_FOLDER_PATH", "FTAGENT_CONDA_ENV"):
        monkeypatch.delenv(name, raising=False)


def document(text: str, schema: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    jsonschema.validate(found, json.loads(files("ftagent.cli").joinpath("schemas", f"{schema}.json").read_text()))
    return found


def test_the_list_says_what_there_is_and_what_is_missing(ftagent: CommandLine) -> None:
    found = document(ftagent("env", "list", "--json").out, "env_list")
    assert [place["name"] for place in found["environments"]] == ["local", "docker", "conda", "ray"]
    local, docker, _, ray = found["environments"]
    assert (local["state"], docker["state"], ray["state"]) == ("ready", "not available", "not available")
    assert NOWHERE in docker["detail"]
    assert "DOCKER_HOST" in docker["detail"]
    assert found["auto"] == "local"
    text = ftagent("env", "list")
    assert text.code == 0
    assert "`--env auto` is local here" in text.out


def test_a_check_of_local_is_shown_check_by_check(ftagent: CommandLine) -> None:
    chosen = ("--only", "exit_codes", "--only", "no_network")
    found = document(ftagent("env", "check", "local", *chosen, "--json").out, "env_check")
    assert [check["name"] for check in found["checks"]] == ["exit_codes", "no_network"]
    assert found["ok"]
    assert found["checks"][1]["status"] == ("not applicable" if sandbox.probe() else "pass")
    answer = ftagent("env", "check", "local", "--only", "exit_codes")
    assert answer.code == 0
    assert answer.out.startswith("ok    exit_codes")
    assert "1 of 1 without failure; local: " in answer.out


OWN = """
import ftagent.environments.local as local

class Careless(local.LocalEnvironment):
    name = "careless"

    def __init__(self):
        super().__init__(local.LocalOptions(sandbox="none"))

    async def execute(self, stage, workspace, on_line, log):
        import dataclasses
        return dataclasses.replace(await super().execute(stage, workspace, on_line, log), end="ok")
"""


def test_an_environment_of_ones_own_is_checked_and_run_by_its_module(
    ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_environment_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    careless = "own_environment_of_a_test:Careless"
    answer = ftagent("env", "check", careless, "--only", "exit_codes", "--only", "variables")
    assert answer.code == 1
    assert [line.split()[:2] for line in answer.out.splitlines()[:2]] == [["FAIL", "exit_codes"], ["ok", "variables"]]
    done = ftagent("run", "--scenario", "noop", "-o", "stages=1", "--loop-n", "1", "--env", careless, "--name", "own")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "log/own/run.json").read_text())["environment"]["name"] == "careless"
    assert ftagent("resume", "own", "--loop-n", "2").code == 0


def test_a_run_whose_environment_fails_says_how_to_go_on_and_claims_nothing(
    ftagent: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (
        OWN.replace("careless", "broken")
        + """
    async def prepare(self, purpose):
        from ftagent.core.errors import EnvironmentUnavailable
        raise EnvironmentUnavailable("the cluster is away")
"""
    )
    (tmp_path / "broken_environment_of_a_test.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    words = ("--env", "broken_environment_of_a_test:Careless", "--name", "broken")
    failed = ftagent("run", "--scenario", "noop", "-o", "stages=1", "--loop-n", "1", *words)
    assert failed.code == 1
    assert "the cluster is away" in failed.err
    assert "baseline:" not in failed.out + failed.err
    assert "nothing beat" not in failed.out + failed.err
    assert failed.out.splitlines()[-1].endswith("ftagent resume log/broken"), failed.out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("check", "nowhere_at_all:Thing"), 2, "module 'nowhere_at_all' cannot be imported"),
        (("check", "json:Thing"), 2, "--env json:Thing: module 'json' has no attribute 'Thing'; give module:class"),
        (("check", ".json:Thing"), 2, "--env .json:Thing: "),
        (("check", ":Thing"), 2, "--env :Thing: "),
        (("check", "pathlib:Path"), 2, "--env pathlib:Path: is no environment, it lacks sealed, describe, prepare"),
        (("check", "json:dumps"), 2, "--env json:dumps: cannot be made without arguments"),
        (("check", "kubernetes"), 2, "--env kubernetes: unknown environment; there are: auto, local, docker, conda"),
        (("check", "ray"), 2, "this version does not have it yet"),
        (("check", "local", "--only", "nonsense"), 2, "--only nonsense: no such check; there are: exit_codes"),
        (("check", "docker"), 2, f"--env docker: no Docker Engine answers at {NOWHERE}"),
        (("build", "docker"), 1, f"no Docker Engine answers at {NOWHERE}"),
        (("build", "local"), 2, "only docker and conda have something to be made"),
        (("build", "docker", "--variant", "tpu"), 2, "variant tpu: the llm image has cpu, cuda, vllm"),
        (("build", "conda", "--again"), 2, "are for docker"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_one_line(ftagent: CommandLine, words: tuple[str, ...], code: int, told: str) -> None:
    answer = ftagent("env", *words)
    assert answer.code == code
    assert told in answer.err
    assert len(answer.err.strip().splitlines()) == 1, answer.err


def test_a_run_in_docker_without_an_engine_starts_nothing(ftagent: CommandLine, tmp_path: Path) -> None:
    answer = ftagent("run", "--scenario", "noop", "--env", "docker", "--loop-n", "1")
    assert answer.code == 2
    assert f"--env docker: no Docker Engine answers at {NOWHERE}" in answer.err
    assert not (tmp_path / "log").exists()


def test_the_doctor_tells_of_an_engine_and_fails_only_where_it_is_wanted(
    ftagent: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finding() -> dict[str, Any]:
        found = json.loads(ftagent("doctor", "--no-models", "--json").out)
        return next(check for check in found["checks"] if check["name"] == "docker")

    assert finding()["ok"]
    monkeypatch.setenv("FT_CODER_COSTEER_ENV_TYPE", "docker")
    assert not finding()["ok"]
    assert NOWHERE in finding()["detail"]


def test_which_image_the_settings_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def name(stack: Any, **variables: str) -> str:
        return docker_options(load(None, variables, tmp_path), stack).source.name

    assert name("llm").startswith("ftagent-llm:")
    assert name("llm", FT_DOCKER_IMAGE="mine:1") == "mine:1"
    # The image that competitions are known to use is large: taken only when it is named.
    assert name("tabular").startswith("ftagent-tabular:")
    kaggle = "gcr.io/kaggle-gpu-images/python:latest"
    assert name("tabular", DS_DOCKER_IMAGE=kaggle) == kaggle
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    folder = name("tabular", DS_DOCKER_IMAGE=kaggle, DS_DOCKERFILE_FOLDER_PATH=str(tmp_path))
    assert folder.startswith("ftagent-tabular:")
    assert folder != name("tabular")
    lent = docker_options(load(None, {"FTAGENT_ENV_PACKAGES": "/a,/b"}, tmp_path), "llm")
    assert lent.packages == (Path("/a"), Path("/b"))
    assert [stack_of(scenario) for scenario in ("llm", "noop", "tabular", "hpo")] == [
        "llm",
        "llm",
        "tabular",
        "tabular",
    ]


def test_auto_is_local_without_a_word_where_no_engine_answers(tmp_path: Path) -> None:
    settings = load(None, {}, tmp_path)
    choice = choose("auto", settings, "llm", print)
    assert isinstance(choice.environment, LocalEnvironment)
    assert choice.notes == ()
    with pytest.raises(RequestError, match=r"--env docker: no Docker Engine answers"):
        choose("docker", settings, "llm", print)
