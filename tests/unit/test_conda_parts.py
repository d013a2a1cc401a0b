"""What conda is told, what it sees of the host, and what of its specifications and errors is understood."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftagent.core.errors import RequestError
from ftagent.environments import conda_program, registry
from ftagent.environments.conda import CondaEnvironment, CondaOptions
from ftagent.environments.conda_program import Program
from ftagent.environments.conda_store import SPECS, Spec

ROOT = Path(__file__).parents[2]


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", conda_program.NAMES)
def test_each_program_is_found_and_said(tmp_path: Path, name: str) -> None:
    path = executable(tmp_path / "bin" / name)
    assert conda_program.find({"PATH": str(path.parent)}) == Program(name, path)
    # A shell that conda has set up may have it as a function alone.
    assert conda_program.find({"PATH": "/nowhere", "CONDA_EXE": str(path)}) == Program(name, path)


def test_conda_comes_before_what_stands_in_for_it(tmp_path: Path) -> None:
    for name in conda_program.NAMES:
        executable(tmp_path / name)
    assert conda_program.find({"PATH": str(tmp_path)}).name == "conda"


def test_no_conda_is_one_line_that_says_what_helps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in conda_program.LOCATIONS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RequestError, match=r"^--env conda: no conda, mamba or micromamba is on PATH; install .*$"):
        registry.create("conda")


@pytest.mark.parametrize(
    ("name", "explicit", "verb"),
    [
        ("conda", False, "env create"),
        ("mamba", False, "env create"),
        ("micromamba", False, "create --yes"),
        ("conda", True, "create --yes"),
        ("micromamba", True, "create --yes"),
    ],
)
def test_what_each_program_is_told(name: str, explicit: bool, verb: str) -> None:
    command = Program(name, Path("/opt/bin", name)).create(Path("/store/llm-1"), Path("/specs/llm.yaml"), explicit)
    assert " ".join(command) == f"/opt/bin/{name} {verb} --quiet --prefix /store/llm-1 --file /specs/llm.yaml"


def test_conda_sees_its_settings_and_no_keys() -> None:
    host = {
        "CONDA_PKGS_DIRS": "/pkgs", "MAMBA_ROOT_PREFIX": "/mamba", "PIP_INDEX_URL": "http://mirror", "TMPDIR": "/big",
        "HTTPS_PROXY": "http://proxy", "no_proxy": "local", "OPENAI_API_KEY": "canary", "HF_TOKEN": "canary",
        "CONDA_ALWAYS_SOFTLINK": "true", "PYTHONPATH": "/mine", "LD_PRELOAD": "/x.so",
    }  # fmt: skip
    seen = conda_program.variables(host)
    assert "canary" not in seen.values()
    assert not {"PYTHONPATH", "LD_PRELOAD"} & seen.keys()
    assert seen["CONDA_ALWAYS_YES"] == seen["MAMBA_ALWAYS_YES"] == "true"
    assert seen["CONDA_ALWAYS_SOFTLINK"] == "false"
    kept = ("CONDA_PKGS_DIRS", "MAMBA_ROOT_PREFIX", "PIP_INDEX_URL", "TMPDIR", "HTTPS_PROXY", "no_proxy")
    assert {name: seen[name] for name in kept} == {name: host[name] for name in kept}


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("Solving environment: failed\n\nResolvePackageNotFound: \n  - torch=99\n  - x\n",
         "ResolvePackageNotFound: - torch=99 - x"),
        ("Collecting\n\nUnavailableInvalidChannel: HTTP 404 for channel x <file:///x>\n\nUse it.\n",
         "UnavailableInvalidChannel: HTTP 404 for channel x <file:///x> Use it."),
        ("working\nerror    libmamba Could not solve for\n  nothing provides y\ncritical libmamba z\n",
         "error    libmamba Could not solve for nothing provides y critical libmamba z"),
        ("Pip subprocess error:\nERROR: No matching distribution found for x==1\n\nCondaEnvException: Pip failed\n",
         "ERROR: No matching distribution found for x==1 CondaEnvException: Pip failed"),
        ("one\nlast\n", "last"),
        ("", "it printed nothing"),
    ],
)  # fmt: skip
def test_the_reason_is_one_line(output: str, told: str) -> None:
    assert conda_program.reason(output) == told
    assert len(conda_program.reason(output + "PipError: " + "x" * 5000)) == 400


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("- a\n- b\n", "is no conda specification"),
        ("dependencies: python\n", "is no conda specification"),
        ("version: 1\npackage: []\n", "is no conda specification"),
        ("a: [\n", "is no YAML"),
        ("a: \x01\n", "is no YAML"),
    ],
)
def test_a_file_that_is_no_specification_is_refused_with_its_name(tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(content)
    with pytest.raises(RequestError, match=rf"^{path}: {part}[^\n]*$"):
        Spec.read(path)
    with pytest.raises(RequestError, match="cannot be read: no such file"):
        Spec.read(tmp_path / "gone.yaml")


def test_a_specification_is_known_by_its_content(tmp_path: Path) -> None:
    one, two, three = (tmp_path / f"{name}.yaml" for name in "abc")
    one.write_text("dependencies: [python]\n")
    two.write_text("dependencies: [python]\n")
    three.write_text("dependencies: [python=3.12]\n")
    assert Spec.read(one).digest == Spec.read(two).digest != Spec.read(three).digest
    two.write_text("# platform: linux-64\n@EXPLICIT\nhttps://x/python-3.12.conda#abc\n")
    assert (Spec.read(one).explicit, Spec.read(two).explicit) == (False, True)


def pip_requirements(name: str) -> set[str]:
    values: dict[str, Any] = yaml.safe_load((SPECS / f"{name}.yaml").read_text())
    return {text for entry in values["dependencies"] if isinstance(entry, dict) for text in entry["pip"]}


def test_the_shipped_specifications_follow_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # TRL is there for code that an agent writes; ftagent itself needs it in its tests alone.
    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    bounds = {re.split(r"[<>=]", text)[0]: text for text in declared}
    wanted = {"accelerate", "datasets", "jinja2", "peft", "pydantic", "pyyaml", "safetensors", "torch", "transformers",
              "trl"}  # fmt: skip
    assert pip_requirements("llm") == {bounds[name] for name in wanted}
    assert {bounds["torch"], bounds["transformers"]} <= pip_requirements("tabular")
    for name in ("llm", "tabular"):
        assert not Spec.read(SPECS / f"{name}.yaml").explicit


def test_nothing_is_made_until_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(executable(tmp_path / "bin" / "mamba").parent), prepend=os.pathsep)
    monkeypatch.setattr(conda_program, "NAMES", ("mamba",))
    environment = CondaEnvironment(CondaOptions(folder=tmp_path / "conda"))
    assert environment.prefix.name == f"llm-{Spec.read(SPECS / 'llm.yaml').digest[:12]}"
    assert str(tmp_path / "bin" / "mamba") in environment.describe()
    assert not environment.ready()
    assert not (tmp_path / "conda").exists()
