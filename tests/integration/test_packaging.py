"""Built-in scenarios are found in the same way in an editable install, a wheel and a wheel built from the sdist."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from clean_venv import ROOT, CleanVenv

pytestmark = pytest.mark.slow
KINDS = ("editable", "wheel", "sdist")
WHERE = "import ftagent, ftagent_llm, ftagent_noop as n; print(ftagent.__file__, ftagent_llm.__file__, n.__file__)"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What to install for each kind: the tree, the wheel built from it, the wheel built from its sdist."""
    direct, by_sdist = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("sdist")
    for options in (["--wheel", "--outdir", str(direct)], ["--outdir", str(by_sdist)]):
        done = subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", *options, str(ROOT)],
            capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    return {"editable": ROOT, "wheel": only(direct, "*.whl"), "sdist": only(by_sdist, "*.whl")}


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def registered() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["ftagent.scenarios"])


@pytest.mark.parametrize("kind", KINDS)
def test_scenarios_are_found_from_another_folder(kind: str, built: dict[str, Path], tmp_path: Path) -> None:
    venv = CleanVenv.make(tmp_path / "venv")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    source = ["-e", str(built[kind])] if kind == "editable" else [str(built[kind])]
    venv.run("pip", "install", "-q", *source, cwd=elsewhere)

    home = ROOT if kind == "editable" else venv.path
    places = venv.run("python", "-c", WHERE, cwd=elsewhere).stdout.split()
    assert [place for place in places if not Path(place).is_relative_to(home)] == []

    listed = json.loads(venv.run("ftagent", "scenarios", "--json", cwd=elsewhere).stdout)
    assert {row["name"] for row in listed["scenarios"]} == registered()


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_wheels_hold_every_source_file_and_nothing_else(kind: str, built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[kind]) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    contexts = {f"ftagent/environments/images/{name}" for name in tracked("docker")}
    assert packed == tracked("src") | tracked("scenarios") | contexts


def test_the_sdist_has_what_is_needed_to_build_test_and_document(built: dict[str, Path]) -> None:
    with tarfile.open(only(built["sdist"].parent, "*.tar.gz")) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    wanted = {
        "pyproject.toml", "constraints.txt", "Makefile", "mkdocs.yml", "README.md", "CHANGELOG.md", "LICENSE",
        ".env.example", "scripts/install", "docs/index.md", "tests/conftest.py",
    }  # fmt: skip
    assert wanted - names == set()
    assert not [name for name in names if name.startswith((".venv", "log/", ".git/")) or name == ".env"]


def tracked(folder: str) -> set[str]:
    """Files of the packages under `folder`, as a wheel names them."""
    base = ROOT / folder
    return {
        str(path.relative_to(base)) for path in base.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
