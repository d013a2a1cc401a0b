"""Follows the plug-in page: its commands, as printed, lead from the template to a run of a new scenario."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from clean_venv import ROOT, CleanVenv

pytestmark = pytest.mark.slow
PAGE = ROOT / "docs/guides/plugin.md"


def commands() -> list[str]:
    """The blocks of shell commands on the page, in order."""
    return re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_page_leads_to_a_run(tmp_path: Path) -> None:
    venv = CleanVenv.make(tmp_path / "venv")
    venv.run("pip", "install", "-q", "-e", str(ROOT), cwd=tmp_path)
    script = "set -eu\n" + "".join(commands())
    assert "ftagent run --scenario forecast" in script

    variables = {**venv.variables(), "FTAGENT_SOURCE": str(ROOT)}
    command = ["sh", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    shown = json.loads(venv.run("ftagent", "show", "last", "--json", cwd=tmp_path / "ftagent-forecast").stdout)
    assert [experiment["loop"] for experiment in shown["experiments"]] == [0, 1]
    assert all(experiment["validation"]["n"] == 200 for experiment in shown["experiments"])
    assert shown["baseline"]["validation"]["value"] < max(e["validation"]["value"] for e in shown["experiments"])


def test_the_page_shows_the_template_as_it_is() -> None:
    page = PAGE.read_text()
    template = ROOT / "docs/plugin_template"
    scenario = (template / "ftagent_forecast/scenario.py").read_text()
    assert len(scenario.splitlines()) < 100
    assert '--8<-- "docs/plugin_template/ftagent_forecast/scenario.py"' in page
    for block in re.findall(r'--8<-- "([^"]+)"', page):
        assert (ROOT / block).is_file(), block
