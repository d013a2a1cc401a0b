"""Agents over a scripted model, without a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftagent.agents.llm import LlmAgent
from ftagent.core.calls import Calls
from ftagent.core.types import Brief
from support import noop
from unit.llm.conftest import Counting, client


def fenced(document: dict[str, Any]) -> str:
    return f"```json\n{json.dumps(document)}\n```\n"


def proposal(**changes: Any) -> str:
    """A reply of the propose step."""
    made = {"title": "a title", "reason": "a reason", "kind": "draft", "parent": None, "expected_effect": "+0.01",
            "measure": "the loss", "params": None}  # fmt: skip
    return fenced({**made, **changes})


def coding(files: dict[str, str] | None = None, **head: Any) -> str:
    """A reply of the code or repair step."""
    named = [f"### file: {name}\n```\n{text.rstrip()}\n```\n" for name, text in (files or {}).items()]
    return "\n".join([fenced(head) if head else "", *named])


def reflection(**changes: Any) -> str:
    """A reply of the feedback step."""
    made = {"observations": ["the loss falls"], "error_categories": [], "hypothesis_held": "yes", "next": "more"}
    return fenced({**made, **changes})


@pytest.fixture
def brief(tmp_path: Path) -> Brief:
    return noop(tmp_path).brief()


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[LlmAgent, Counting]]:
    """`made(replies, templates=…, lessons=…, **script)`: an agent and the backend that counts what it asks."""

    def make(
        replies: list[dict[str, Any]], templates: Any = None, lessons: Any = (), **script: Any
    ) -> tuple[LlmAgent, Counting]:
        path = tmp_path / "model.yaml"
        path.write_text(yaml.safe_dump({"replies": replies, **script}))
        backend = Counting(path)
        return LlmAgent(client(backend, Calls(), tmp_path, print), templates, lessons), backend

    return make
