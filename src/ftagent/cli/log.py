"""Where log lines go: loguru to the progress display, in the user's format."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ftagent.core.errors import RequestError

DEFAULT_FORMAT = "<dim>{time:HH:mm:ss}</dim> <level>{level: <7}</level> {message}"


def configure(
    format_: str | None, write: Callable[[str], None], debug: bool, redact: Callable[[str], str]
) -> Callable[[], None]:
    """Send every log line to `write`, without its newline and through `redact`, until the function returned is called.

    Raises RequestError for a format loguru cannot use."""
    from loguru import logger

    chosen = format_ or DEFAULT_FORMAT
    logger.remove()
    try:
        # A wrong name in a format shows only when a line is written; here it is caught before a run starts.
        probe = logger.add(lambda message: None, format=chosen, level="TRACE", catch=False)
        logger.debug("probe")
        logger.remove(probe)
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise RequestError(
            f"LOG_FORMAT_CONSOLE: no format that loguru can use ({error}); such as '{{time}} {{level}} {{message}}'"
        ) from error
    # With `diagnose` tracebacks would tell the values of variables.
    options: dict[str, Any] = {"format": chosen, "level": "DEBUG" if debug else "INFO", "diagnose": False}
    handler = logger.add(
        lambda message: write(redact(str(message).rstrip("\n"))), colorize=sys.stderr.isatty(), **options
    )
    return lambda: logger.remove(handler)
