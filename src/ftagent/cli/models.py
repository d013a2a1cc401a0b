"""Models as users name them, for commands that use the toolkit in this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftagent.settings import Settings


def resolve_model_path(name: str, settings: Settings) -> Path:
    """The folder of a model that is named by folder, hub id or alias. Raises RequestError where there is none."""
    from ftagent.contexts import hub_access
    from ftagent_llm.models import resolve_model

    return resolve_model(name, settings.finetune.file_path.absolute(), hub_access(settings)).path


def prepare_torch() -> None:
    """Before torch is imported: threads that spin while they wait take the cores from each other."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
