"""What `train` and `predict` share: one file, JSON lines on stdout, one line for an error."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ftagent.toolkit.config import ConfigType, load_config
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.logs import silence_console

Emit = Callable[[dict[str, Any]], None]
"""Receives each record that is printed as one JSON line."""


INTERRUPTED = 130


def print_record(record: dict[str, Any]) -> None:
    """One JSON line on stdout, visible at once."""
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def run_command(name: str, arguments: list[str], kind: type[ConfigType], action: Callable[..., object]) -> int:
    """Load the YAML file of `arguments`, under its `-o key=value`, and do `action`.

    Returns the exit code: 0, or that of a ToolkitError with one line on stderr, or 130 after a second Ctrl-C.
    """
    # Threads that spin while they wait take the cores from each other; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # They are about the insides of libraries, and nobody who runs a training can act on them.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
    silence_console()
    try:
        path, overrides, more = _read_arguments(name, arguments)
        action(load_config(path, kind, overrides), print_record, **more)
    except ToolkitError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        return INTERRUPTED
    return 0


def _read_arguments(name: str, arguments: list[str]) -> tuple[Path, list[str], dict[str, bool]]:
    """(file, overrides, what else the action takes)."""
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            options = " [-o key=value]... [--fresh]" if name == "train" else ""
            raise ToolkitError(f"{message}; usage: python -m ftagent.toolkit.{name} {name}.yaml{options}")

    parser = Parser(add_help=False)
    parser.add_argument("file", type=Path)
    if name == "train":
        parser.add_argument("-o", dest="overrides", action="append", default=[])
        parser.add_argument("--fresh", action="store_true")
    given = parser.parse_args(arguments)
    return given.file, getattr(given, "overrides", []), {"fresh": True} if getattr(given, "fresh", False) else {}
