"""What keeps the code base readable: small files and functions, a light command line, declared dependencies."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "scenarios").rglob("*.py")])
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_ENGINE_LINES = 250
MAX_HELP_RATIO = 3.0
HEAVY = {
    "torch", "transformers", "peft", "trl", "accelerate", "datasets", "litellm", "openai", "docker",
    "optuna", "numpy", "pandas", "matplotlib", "reasoning_gym", "math_verify", "safetensors", "gguf",
}  # fmt: skip
RUN_COMMAND = """
import sys
from ftagent.cli import main
try:
    main()
except SystemExit as end:
    print("exit", end.code, file=sys.stderr)
print("modules", *sys.modules, file=sys.stderr)
"""


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def parsed() -> Iterator[tuple[Path, ast.Module]]:
    for path in SOURCES:
        yield path.relative_to(ROOT), ast.parse(path.read_text())


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert len(lengths) > 10
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    # The body is counted: the parameters of a command are its documentation.
    long = {
        f"{path}:{node.lineno} {node.name}": length
        for path, tree in parsed()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.body[0].lineno + 1) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_the_engine_is_one_readable_file() -> None:
    engine = ROOT / "src/ftagent/core/engine.py"
    assert len(engine.read_text().splitlines()) <= MAX_ENGINE_LINES


def test_every_broad_except_gives_its_reason() -> None:
    # ruff's BLE001 finds those that do not raise again; what is left is that the exemption says why.
    silent = re.compile(r"#\s*noqa:\s*BLE001\s*$")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if silent.search(line)
    ]
    assert found == []
    assert "BLE" in project()["tool"]["ruff"]["lint"]["select"]


def test_every_import_is_a_declared_dependency() -> None:
    metadata = project()["project"]
    extras = metadata["optional-dependencies"].values()
    declared = [*metadata["dependencies"], *(spec for specs in extras for spec in specs)]
    names = {normalised(re.split(r"[\[<>=!~ ;]", spec)[0]) for spec in declared}
    own = {"ftagent", *(path.name for path in (ROOT / "scenarios").iterdir())}
    providers = packages_distributions()
    undeclared = {
        f"{path}: {module}"
        for path, tree in parsed()
        for module in imported(tree)
        if module not in own and module not in sys.stdlib_module_names
        and not names & {normalised(name) for name in providers.get(module, [module])}
    }  # fmt: skip
    assert undeclared == set()


def imported(tree: ast.Module) -> set[str]:
    """Top-level names of what is imported anywhere in `tree`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_scenario_is_registered_and_packaged() -> None:
    metadata = project()
    folders = {path.name for path in (ROOT / "scenarios").iterdir() if (path / "__init__.py").exists()}
    points = metadata["project"]["entry-points"]
    registered = {target.split(".")[0] for target in points["ftagent.scenarios"].values()}
    packaged = {Path(path).name for path in metadata["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert registered == folders
    assert packaged == {*folders, "ftagent"}
    assert points["ftagent.options"].keys() == points["ftagent.scenarios"].keys()


@pytest.mark.parametrize("arguments", [["--help"], ["runs"], ["show", "last"], ["version"]], ids=" ".join)
def test_light_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_COMMAND, *arguments],
        cwd=tmp_path, env={**os.environ, "FT_LOG_PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    modules = done.stderr.split("modules ")[-1].split()
    assert "ftagent.cli" in modules, done.stderr
    assert sorted(HEAVY & set(modules)) == []


def test_help_costs_little() -> None:
    """Against a bare interpreter in the same test, because seconds depend on the machine and on what else it does."""

    def cpu_seconds(code: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, check=True, timeout=60)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    helps, bares = [], []
    for _ in range(5):
        helps.append(cpu_seconds("from ftagent.cli import main; main()"))
        bares.append(cpu_seconds("import asyncio"))
    # The first run may write bytecode, and a busy machine only ever adds: the least of several is the cost.
    assert min(helps) < MAX_HELP_RATIO * max(min(bares), 0.03)
