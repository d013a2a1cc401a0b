"""What a training tells people: sentences to the console and to file.log, through loguru."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftagent.toolkit.errors import ToolkitError

LOG = "file.log"
_FORMAT = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}"


def sentence(record: dict[str, Any]) -> str:
    """A record of a training in words."""
    event = record.get("event")
    if event == "data":
        known = ("event", "steps", "tokens")
        counts = [f"{name.replace('_', ' ')} {value}" for name, value in record.items() if name not in known and value]
        return f"{record['steps']} steps over {record['tokens']} tokens: {', '.join(counts)}"
    if event == "resumed":
        return f"going on after step {record['step']}"
    if event == "already_complete":
        return f"{record['output']} is already complete"
    if event == "saved":
        best = f", of step {record['best_step']}, the best" if record.get("best_step") else ""
        return f"saved {record['output']}{best}"
    if "validation_loss" in record:
        best = ", the best so far" if record["best"] else ""
        return f"step {record['step']}: validation loss {record['validation_loss']:.4f}{best}"
    rest = [f"{name} {value:.4g}" for name, value in record.items() if name not in ("step", "tokens", "seconds")]
    return f"step {record['step']}: {', '.join(rest)}, {record['tokens']} tokens in {record['seconds']:.0f} s"


@contextlib.contextmanager
def log_file(folder: Path) -> Iterator[None]:
    """Append what is logged to `folder`/file.log meanwhile. A full disk costs lines, never the training."""
    logger = _logger()
    if logger is None:
        yield
        return
    with (folder / LOG).open("a", encoding="utf-8") as stream:

        def write(message: Any) -> None:
            with contextlib.suppress(OSError):
                stream.write(str(message))
                stream.flush()

        handler = logger.add(write, format=_FORMAT, level="DEBUG", colorize=False, diagnose=False)
        try:
            yield
        except ToolkitError as error:
            # For the file alone: whoever catches it tells the console.
            logger.debug("error: {}", error)
            raise
        finally:
            logger.remove(handler)


def log(record: dict[str, Any]) -> None:
    """Log a record: steps for the file alone, the rest for the console, too."""
    logger = _logger()
    if logger is not None:
        logger.log("DEBUG" if "loss" in record else "INFO", "{}", sentence(record))


def silence_console() -> None:
    """Keep log lines off stderr, where only an error belongs when a program reads the output."""
    logger = _logger()
    if logger is not None:
        logger.remove()


def _logger() -> Any:
    """None where a workspace's environment has no loguru; the JSON lines tell all there."""
    try:
        from loguru import logger
    except ImportError:
        return None
    return logger
