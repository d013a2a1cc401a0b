"""What `train` and `predict` share: one argument, JSON lines on stdout, one line for an error."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftagent.toolkit.config import ConfigType, load_config
from ftagent.toolkit.errors import ToolkitError

Emit = Callable[[dict[str, Any]], None]
"""Receives each record that is printed as one JSON line."""


def print_record(record: dict[str, Any]) -> None:
    """One JSON line on stdout, visible at once."""
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def run_command(
    name: str, arguments: list[str], kind: type[ConfigType], action: Callable[[ConfigType, Emit], object]
) -> int:
    """Load the one YAML file in `arguments`, do `action`; exit code 0, or 2 with one line on stderr."""
    # Threads that spin while they wait take the cores from each other; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # They are about the insides of libraries, and nobody who runs a training can act on them.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
    try:
        if len(arguments) != 1 or arguments[0].startswith("-"):
            raise ToolkitError(f"usage: python -m ftagent.toolkit.{name} {name}.yaml")
        action(load_config(Path(arguments[0]), kind), print_record)
    except ToolkitError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0
